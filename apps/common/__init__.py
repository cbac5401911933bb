"""What the apps share: the configuration's sections, the commands, and the glue of data, detector and engine."""
