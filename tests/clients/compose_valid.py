"""Checks a file of the Compose specification: FILE. Prints it as JSON."""

import sys

from compose_spec import PyCompose

with open(sys.argv[1], encoding="utf-8") as file:
    compose = PyCompose.from_yaml(file.read())
compose.validate()
print(compose.to_json())
