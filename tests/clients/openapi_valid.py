"""Checks that a document is one of OpenAPI 3.1: FILE."""

import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

with open(sys.argv[1], encoding="utf-8") as file:
    document = json.load(file)
if not document["openapi"].startswith("3.1."):
    sys.exit(f"version {document['openapi']}")
errors = [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in OpenAPIV31SpecValidator(document).iter_errors()]
if errors:
    sys.exit("\n".join(errors))
print(json.dumps({"paths": len(document["paths"])}))
