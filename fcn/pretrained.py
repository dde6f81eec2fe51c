"""Which parameters of an FCN-8s checkpoint a network takes: decided before anything is loaded.

Imports MindSpore only to read a checkpoint that has no manifest beside it.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from fcn import checkpoint
from fcn.architecture import Architecture, parameter_shapes
from fcn.config import Config
from fcn.errors import ConfigError, WeightsError
from fcn.strict import Shapes, abridged, require_fit

# What a training checkpoint holds beside the network, ours or the original project's
_STATE = ("moments.", "ema.")
_COUNTERS = (
    *("learning_rate", "momentum", "global_step", "epoch_num", "step_num"),
    *("scale_sense", "current_iterator_step", "last_overflow_iterator_step"),
)


def is_networks(name: str) -> bool:
    """Whether a name of a checkpoint can be the network's: neither the optimizer's nor a counter's."""
    return not name.startswith(_STATE) and name not in _COUNTERS


def check_pretrained(path: Path, config: Config) -> List[str]:
    """What training would load of this checkpoint (`ckpt_pre_trained`), in lines; raises FcnError."""
    if not path.is_file():
        raise WeightsError(f"ckpt_pre_trained: {path}: no such file")
    description: Optional[Mapping[str, Any]]
    if path.with_suffix(".json").is_file():
        description = checkpoint.verify(path).manifest
        known = {field.name for field in fields(Architecture)}
        arch = {key: value for key, value in description["architecture"].items() if key in known}
        shapes = parameter_shapes(Architecture(**arch))
    else:
        values, description = checkpoint.load(path)
        shapes = shapes_of(values)
    return report(path, *choose(path, shapes, description, config))


def report(path: Path, loaded: Sequence[str], left_out: Sequence[str]) -> List[str]:
    """For the person at the keyboard."""
    return [
        f"ckpt_pre_trained: {path}: {len(loaded)} parameters loaded",
        f"  left out, start anew: {abridged(left_out)}",
    ]


def shapes_of(values: Mapping[str, Any]) -> Dict[str, Tuple[int, ...]]:
    """Shapes of what may be the network's among the values of a checkpoint."""
    return {n: tuple(v.shape) for n, v in values.items() if is_networks(n) and hasattr(v, "shape")}


def choose(
    path: Path, shapes: Shapes, description: Optional[Mapping[str, Any]], config: Config
) -> Tuple[List[str], List[str]]:
    """Names to load and names that filter_weight leaves out.

    Raises FcnError where names or shapes do not fit, or the checkpoint means something else by them.
    """
    source = f"ckpt_pre_trained: {path}"
    needed = parameter_shapes(config.architecture)
    left_out = config.filter_list if config.filter_weight else []
    unknown = [name for name in left_out if name not in needed and is_networks(name)]
    if unknown:
        raise ConfigError(f"filter_list: the network has no {', '.join(unknown)}")
    taken = {name: shape for name, shape in shapes.items() if name not in left_out}
    if not {"score_pool4.weight", "score_pool3.weight"} & taken.keys():
        description = _with_skip_scales(description, config)  # they are of the heads, which start anew
    require_same_meaning(source, description, config)
    require_classes(source, taken, config, "set filter_weight=true to start its heads anew, or ")
    require_fit(taken, needed, source, may_lack=left_out)
    return list(taken), [name for name in left_out if name in shapes]


def _with_skip_scales(
    description: Optional[Mapping[str, Any]], config: Config
) -> Optional[Mapping[str, Any]]:
    if description is None:
        return None
    architecture = {**description["architecture"], "skip_scales": list(config.skip_scales)}
    return {**description, "architecture": architecture}


def require_classes(source: str, shapes: Shapes, config: Config, remedy: str = "") -> None:
    """Raises WeightsError where a checkpoint predicts another number of classes."""
    classes = shapes.get("score_fr.weight", (config.num_classes,))[0]
    if classes != config.num_classes:
        raise WeightsError(
            f"{source}: predicts {classes} classes, num_classes is {config.num_classes}; "
            f"{remedy}set num_classes={classes}"
        )


def require_same_meaning(source: str, description: Optional[Mapping[str, Any]], config: Config) -> None:
    """Raises WeightsError where a checkpoint was trained with another normalisation or other skip scales.

    Names and shapes would fit, and every prediction be wrong. `description` is what was saved with the
    checkpoint, None for a foreign one.
    """
    if description is None:
        return
    meant = {**description["normalisation"], "skip_scales": description["architecture"]["skip_scales"]}
    ours = {**config.normalisation, "skip_scales": list(config.skip_scales)}
    wrong = [
        f"  {key}: {meant[key]} in the file, {ours[key]} here" for key in ours if meant[key] != ours[key]
    ]
    if wrong:
        raise WeightsError(f"{source}: trained with other settings; set them alike\n" + "\n".join(wrong))
