"""Names in docstrings as code: a griffe extension that drops the roles before them."""

import re

import griffe  # pyrefly: ignore[missing-import]

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod|py\w*):(?=`)")


class Roles(griffe.Extension):
    """Turns ``:func:`name` `` into `` `name` `` as docstrings are read."""

    def on_instance(self, *, obj: griffe.Object, **_options: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub("", obj.docstring.value)
