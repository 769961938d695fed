"""Print `template.yaml` with SAM's resources expanded; needs the Python of `.venv-sam` for its translator.

expand.py template.yaml [Parameter=value …]
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator


def main(path: str, *given: str) -> None:
    template = yaml_parse(Path(path).read_text())
    template["Globals"]["Function"]["CodeUri"] = "s3://bucket/built"
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = "s3://bucket/built"
    parameters = {name: str(parameter["Default"]) for name, parameter in template["Parameters"].items()}
    parameters |= dict(pair.split("=", 1) for pair in given)
    translator = Translator({}, Parser(), boto_session=SimpleNamespace(region_name="eu-central-1"))
    json.dump(translator.translate(template, parameters), sys.stdout, indent=1)


main(*sys.argv[1:])
