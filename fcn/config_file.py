"""Reads the configuration: a YAML file or a shipped recipe, and `key=value` overrides.

The original FCN8s project's files load as they are; what they have and this trainer does not need is accepted
and said. `python -m fcn.config_file` answers with a file of all keys.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import yaml
from pydantic import AliasChoices, ValidationError

from fcn.answer import Parser, answer
from fcn.config import Config
from fcn.errors import ConfigError

_TEXT_COLUMNS = 100
RECIPES = Path(__file__).resolve().parent / "recipes"

# Keys of the original project that decide nothing here, and why. They are accepted so that its files load.
NOT_USED = {
    **dict.fromkeys(("enable_modelarts", "data_url", "train_url", "checkpoint_url"), "ModelArts copies"),
    **dict.fromkeys(("data_path", "output_path", "load_path", "checkpoint_path"), "ModelArts copies"),
    "checkpoint_file": "--ckpt names the checkpoint to evaluate",
    "device_target": "the cluster file names the device kind",
    "parallel_mode": "training is data parallel",
    "enable_profiling": "not built",
    "file_name": "not a training setting",
    "file_format": "not a training setting",
}


def _names() -> List[str]:
    names = list(NOT_USED)
    for name, field in Config.model_fields.items():
        alias = field.validation_alias
        names += [str(c) for c in alias.choices] if isinstance(alias, AliasChoices) else [name]
    return names


def _read_file(path: str) -> Tuple[str, Dict[str, Any], Dict[str, int]]:
    """The file's name, its keys and values, and the line of each key. Recipes are found by bare name."""
    file = Path(path)
    if not file.is_file() and (RECIPES / f"{path}.yaml").is_file():
        file = RECIPES / f"{path}.yaml"
    if not file.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.yaml")))
        raise ConfigError(f"{path}: no such configuration file; give a path, or a shipped recipe: {shipped}")
    try:
        # The original's files hold help texts in a second and third document.
        node = next(iter(yaml.compose_all(file.read_text(), Loader=yaml.SafeLoader)), None)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML: {error}") from None
    if node is None:
        return str(file), {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: expected `key: value` lines")
    values: Dict[str, Any] = {}
    lines: Dict[str, int] = {}
    loader = yaml.SafeLoader("")
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in lines:
            raise ConfigError(f"{file}:{line}: {key}: also on line {lines[key]}; remove one of them")
        try:
            value = loader.construct_object(value_node, deep=True)
            values[key], lines[key] = value if _is_text(key) else _number(value), line
        except yaml.YAMLError as error:
            raise ConfigError(f"{file}:{line}: {key}: cannot be read: {error}") from None
    return str(file), values, lines


def _read_overrides(overrides: Sequence[str]) -> Dict[str, Any]:
    values = {}
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {item}: expected key=value")
        try:
            value = text if _is_text(key) else _number(yaml.safe_load(text))
        except yaml.YAMLError:
            value = text
        values[key] = "" if value is None else value
    return values


def _is_text(key: str) -> bool:
    field = Config.model_fields.get(_aliases(key)[0])
    return field is not None and field.annotation in (str, "str")


def _number(value: Any) -> Any:
    """YAML reads 1e-4 as a text; people mean the number."""
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", value):
        return float(value)
    return value


def load_config(
    file: Optional[str] = None, overrides: Sequence[str] = (), base: Optional[Mapping[str, Any]] = None
) -> Tuple[Config, List[str]]:
    """Read a YAML file (or a recipe's name) over `base`, apply `key=value` overrides, check everything.

    Returns the configuration and remarks for the person at the keyboard. Raises ConfigError that lists every
    bad key with its file and line.
    """
    source, from_file, lines = _read_file(file) if file else ("", {}, {})
    given = _read_overrides(overrides)
    places = {key: f"{source}:{line}: {key}" for key, line in lines.items()}
    places.update({key: f"--set {key}" for key in given})
    values = dict(base or {})
    for source_values in (from_file, given):
        # The later source wins also where one of the two uses a key's older name.
        for key in source_values:
            for name in _aliases(key):
                values.pop(name, None)
        values.update(source_values)
    problems = []
    for key in list(from_file):
        for other in set(_aliases(key)) & {*from_file} - {key}:
            if other > key:  # once a pair
                problems.append(f"{places[key]}: the same key as {other} on line {lines[other]}; remove one")
                values.pop(other, None)
    names = _names()
    for key in [key for key in values if key not in names]:
        near = difflib.get_close_matches(key, names, n=1, cutoff=0)[0]
        problems.append(f"{places.get(key, key)}: unknown key; the nearest known one is {near}")
        del values[key]
    remarks = [f"{places[key]}: not used here: {NOT_USED[key]}" for key in values if key in NOT_USED]
    values = {key: value for key, value in values.items() if key not in NOT_USED}
    try:
        config = Config(**values)
    except ValidationError as error:
        problems += [_explain(item, places) for item in error.errors()]
    if problems:
        raise ConfigError("\n".join(problems))
    return config, remarks


def given(key: str, file: Optional[str], overrides: Sequence[str]) -> Any:
    """What overrides, or else a file, set a key to, unchecked; None where neither does."""
    from_file = _read_file(file)[1] if file else {}
    return {**from_file, **_read_overrides(overrides)}.get(key)


def _aliases(key: str) -> List[str]:
    for field in Config.model_fields.values():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices) and key in alias.choices:
            return [str(choice) for choice in alias.choices]
    return [key]


def _explain(item: Any, places: Dict[str, str]) -> str:
    key = str(item["loc"][0]) if item["loc"] else ""
    message = item["msg"].replace("Value error, ", "")
    if not key:
        return message
    field = next((f for n, f in Config.model_fields.items() if key in _aliases(n)), None)
    meaning = f" ({field.description})" if field else ""
    return f"{places.get(key, key)}: {message}, got {item['input']!r}{meaning}"


def as_yaml(config: Config) -> str:
    """A configuration file that says everything `config` does, each key below its meaning."""
    lines = []
    for name, value in config.model_dump(mode="json").items():
        meaning = textwrap.wrap(Config.model_fields[name].description or "", _TEXT_COLUMNS)
        lines += [*(f"# {line}" for line in meaning), f"{name}: {json.dumps(value)}", ""]
    return "\n".join(lines)


def main(argv: Optional[List[str]] = None) -> int:
    """Print the answer; 0 where the configuration is well, 2 where it is not."""

    def work() -> Dict[str, Any]:
        parser = Parser(prog="python -m fcn.config_file", allow_abbrev=False)
        parser.add_argument("--config", help="YAML file or recipe")
        parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
        args = parser.parse_args(argv)
        config, remarks = load_config(args.config, args.overrides)
        return {"warnings": remarks, "text": as_yaml(config)}

    return answer(work)


if __name__ == "__main__":
    sys.exit(main())
