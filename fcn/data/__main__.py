"""`python -m fcn.data build|make-demo`: progress on stderr, one JSON object on stdout, exit code 0 or 2.

`fcn-launch data` passes its arguments to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from fcn.answer import Parser, answer

_PROG = "fcn-launch data"


def main(argv: Optional[List[str]] = None) -> int:
    """Run one verb; returns the exit code."""

    def work() -> Dict[str, Any]:
        options = _parser().parse_args(argv)
        return dict(options.run(options))

    return answer(work)


def _build(given: argparse.Namespace) -> Dict[str, Any]:
    from fcn.data.build import BuildOptions, build_dataset

    return build_dataset(
        BuildOptions(
            root=given.root,
            list_file=given.list_file,
            out=given.out,
            shards=given.shards,
            shuffle=given.shuffle,
            seed=given.seed,
            num_classes=given.num_classes,
            ignore_label=given.ignore_label,
            overwrite=given.overwrite,
        )
    )


def _make_demo(given: argparse.Namespace) -> Dict[str, Any]:
    from fcn.data.shapes import DemoOptions, make_demo

    return make_demo(
        DemoOptions(
            out=given.out,
            train=given.train,
            val=given.val,
            size=given.size,
            seed=given.seed,
            overwrite=given.overwrite,
        )
    )


def _parser() -> Parser:
    parser = Parser(prog=_PROG, description="Make data sets.", allow_abbrev=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)
    _add_build(
        verbs.add_parser("build", help="MindRecord files from a list of images and masks", allow_abbrev=False)
    )
    _add_make_demo(verbs.add_parser("make-demo", help="draw a small labelled set", allow_abbrev=False))
    return parser


def _add_build(verb: argparse.ArgumentParser) -> None:
    verb.description = (
        "Check every image and mask of a list, then write them as MindRecord files with a manifest. "
        "Bad samples are all listed, with their lines, and then nothing is written."
    )
    add = verb.add_argument
    add(
        "--root", "--data_root", type=Path, required=True, help="folder that the paths of the list start from"
    )
    add(
        "--list",
        "--data_lst",
        dest="list_file",
        type=Path,
        required=True,
        metavar="FILE",
        help="samples, one a line: `image_path mask_path`, or a name to be found as img/NAME.jpg and "
        "cls_png/NAME.png, or in VOC's JPEGImages/ and SegmentationClassAug/ or SegmentationClass/",
    )
    add(
        "--out", "--dst_path", type=Path, required=True, help="X.mindrecord; shards become X.mindrecord0, ..."
    )
    add("--shards", "--num_shards", type=int, default=1, help="MindRecord files to write (default 1)")
    add(
        "--shuffle",
        type=_yes_or_no,
        nargs="?",
        const=True,
        default=False,
        metavar="True|False",
        help="mix the rows in the files; training draws its own order and does not depend on it (default no)",
    )
    add("--no-shuffle", dest="shuffle", action="store_false", help="keep the rows in the order of the list")
    add("--seed", type=int, default=1, help="of the shuffle (default 1)")
    add("--num-classes", "--num_classes", type=int, default=21, help="background included (default 21)")
    add(
        "--ignore-label",
        "--ignore_label",
        type=int,
        default=255,
        help="label that does not count (default 255)",
    )
    add("--overwrite", action="store_true", help="replace the data set of that name")
    verb.set_defaults(run=_build)


def _add_make_demo(verb: argparse.ArgumentParser) -> None:
    verb.description = "Draw images of shapes with their masks, lists of both splits, and train.mindrecord."
    add = verb.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--train", type=int, default=480, help="training images (default 480)")
    add("--val", type=int, default=60, help="validation images (default 60)")
    add("--size", type=int, default=64, help="height and width in pixels (default 64)")
    add("--seed", type=int, default=1, help="of all that is drawn (default 1)")
    add("--overwrite", action="store_true", help="replace the set in that folder")
    verb.set_defaults(run=_make_demo)


def _yes_or_no(text: str) -> bool:
    known = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in known:
        raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")
    return known[text.lower()]


if __name__ == "__main__":
    sys.exit(main())
