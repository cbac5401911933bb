"""The doctor: reads a whole data set, pictures included, and says what is wrong with it and how to mend it."""
