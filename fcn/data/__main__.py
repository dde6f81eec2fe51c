"""`python -m fcn.data build|voc|info|verify|make-demo`: progress on stderr, one JSON object on stdout.

The exit code is 0 or 2. `fcn-launch data` passes its arguments to it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from fcn.answer import BAD_INPUT, Parser, answer

_PROG = "fcn-launch data"


def main(argv: Optional[List[str]] = None) -> int:
    """Run one verb; returns the exit code."""
    outcome: Dict[str, Any] = {}

    def work() -> Dict[str, Any]:
        options = _parser().parse_args(argv)
        outcome.update(options.run(options))
        return outcome

    code = answer(work)
    return BAD_INPUT if outcome.get("bad") else code


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
            decoded=given.decoded,
            overwrite=given.overwrite,
        )
    )


def _voc(given: argparse.Namespace) -> Dict[str, Any]:
    from fcn.data.voc import VocOptions, make_voc

    return make_voc(
        VocOptions(
            voc=given.voc,
            out=given.out,
            sbd=given.sbd,
            shards=given.shards,
            decoded=given.decoded,
            overwrite=given.overwrite,
        )
    )


def _info(given: argparse.Namespace) -> Dict[str, Any]:
    from fcn.data.info import describe

    return describe(given.file, given.sheet)


def _verify(given: argparse.Namespace) -> Dict[str, Any]:
    from fcn.data.verify import verify_dataset

    return verify_dataset(given.file)


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
    parser = Parser(prog=_PROG, description="Make data sets, and look into them.", allow_abbrev=False)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True, parser_class=Parser)
    for name, text, add_to in (
        ("build", "MindRecord files from a list of images and masks", _add_build),
        ("voc", "PASCAL VOC 2012, alone or with SBD", _add_voc),
        ("info", "what a data set holds", _add_info),
        ("verify", "read every sample of a data set", _add_verify),
        ("make-demo", "draw a small labelled set", _add_make_demo),
    ):
        add_to(verbs.add_parser(name, help=text, allow_abbrev=False))
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
        "cls_png/NAME.png, or in VOC's JPEGImages/ and SegmentationClass/ or SegmentationClassAug/",
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
    _add_decoded(verb)
    add("--overwrite", action="store_true", help="replace the data set of that name")
    verb.set_defaults(run=_build)


def _add_decoded(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--decoded",
        action="store_true",
        help="store pixels rather than JPEG files: seven times larger for VOC, for hosts where decoding them "
        "holds training up; the batches are the same",
    )


def _add_voc(verb: argparse.ArgumentParser) -> None:
    verb.description = (
        "Make train.mindrecord and val.mindrecord of PASCAL VOC 2012, and their lists train.txt and val.txt. "
        "VOC alone has 1,464 training images; with SBD, whose masks are converted from MATLAB files, or with "
        "trainaug.txt and SegmentationClassAug/ in VOC's folder, there are 10,582. No validation image is "
        "trained on; where both have labelled an image, VOC's mask is taken."
    )
    add = verb.add_argument
    add("--voc", type=Path, required=True, metavar="DIR", help="VOCdevkit/VOC2012")
    add("--sbd", type=Path, metavar="DIR", help="benchmark_RELEASE, to train on SBD too; needs scipy")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    add("--shards", type=int, default=4, help="MindRecord files to write of each set (default 4)")
    _add_decoded(verb)
    add("--overwrite", action="store_true", help="replace the sets in that folder")
    verb.set_defaults(run=_voc)


def _add_info(verb: argparse.ArgumentParser) -> None:
    verb.description = (
        "Show counts, image sizes, class frequencies, files and fingerprint of a data set, and write a "
        "contact sheet: images with their masks, spread evenly over it."
    )
    _add_file(verb)
    verb.add_argument(
        "--sheet",
        type=Path,
        metavar="FILE.png",
        help="the contact sheet; no other picture is overwritten (default X.mindrecord.png, which is)",
    )
    verb.set_defaults(run=_info)


def _add_verify(verb: argparse.ArgumentParser) -> None:
    verb.description = (
        "Read every sample of a data set: checksums of files and samples, their number in each file, images "
        "and masks that decode, and labels. Bad ones are named, and the exit code is 2."
    )
    _add_file(verb)
    verb.set_defaults(run=_verify)


def _add_file(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("file", type=Path, metavar="FILE", help="X.mindrecord, or one of its shards")


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
