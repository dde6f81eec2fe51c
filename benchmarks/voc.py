"""Learning on real images, beside PyTorch: `python -m benchmarks.voc --voc VOC2012 --vgg16 FILE.npz`.

The same recipe (voc_cpu), order of samples, augmentation and learning rates; fc6 and fc7 are drawn by each
framework; two seeds. Takes about an hour and a half on two cores. Draws docs/voc_curves.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Dict, List

from benchmarks.report import report

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "voc_curves.png"
SEEDS = (1, 2)
FILLED = (0, 8, 10, 12, 13, 15, 17)  # background, cat, cow, dog, horse, person, sheep
SMOOTH_STEPS = 10


def main() -> None:
    """Train and score with each framework and seed; report means over the filled classes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.voc", description=__doc__)
    parser.add_argument(
        "--voc", type=Path, required=True, help="VOC2012 folder with trainaug.txt and val.txt"
    )
    parser.add_argument("--vgg16", type=Path, required=True, help="VGG16-BN encoder")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    for package in ("torch", "matplotlib"):
        if find_spec(package) is None:
            sys.exit(f"{package} is needed and is not installed: pip install {package}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.out or Path(scratch)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        lists = args.voc.absolute() / "ImageSets" / "Segmentation"
        data = folder / "voc.mindrecord"
        if not data.with_name(data.name + ".json").exists():
            build = (
                "data",
                "build",
                "--root",
                args.voc.absolute(),
                "--list",
                lists / "trainaug.txt",
                "--out",
                data,
            )
            _fcn_launch(*build)
        settings = [
            f"data_file={data}",
            f"data_root={args.voc.absolute()}",
            f"data_lst={lists / 'val.txt'}",
            f"ckpt_vgg16={args.vgg16.absolute()}",
            *args.settings,
        ]
        results = {}
        for seed in SEEDS:
            for name, train in (("fcn-launch", _ours), ("PyTorch", _peer)):
                kept = folder / f"{name}-{seed}.json"
                if not kept.exists():  # a measurement that was cut short goes on
                    kept.write_text(
                        json.dumps(train([*settings, f"seed={seed}"], folder / f"{name}-{seed}", lists))
                    )
                results[name, seed] = json.loads(kept.read_text())
    _report(results)
    _draw(results)


def _fcn_launch(*words: Any) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "launcher", *map(str, words)]
    return subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True).stdout


def _ours(settings: List[str], folder: Path, lists: Path) -> Dict[str, Any]:
    sets = [word for item in settings for word in ("--set", item)]
    _fcn_launch("--cluster", "1xcpu.yaml", "--runs", folder, "train", "--config", "voc_cpu", *sets)
    (run,) = folder.iterdir()
    scores = json.loads(_fcn_launch("--runs", folder, "eval", "--json").splitlines()[-1])
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = (steps[-1]["time_ns"] - steps[0]["time_ns"]) / 1e9
    losses = [step["loss"] for step in steps if step["event"] == "step"]
    return {"losses": losses, "iou": scores["iou"], "seconds": seconds}


def _peer(settings: List[str], folder: Path, lists: Path) -> Dict[str, Any]:
    program = [sys.executable, "-m", "benchmarks.torch_voc", str(lists / "trainaug.txt"), *settings]
    done = subprocess.run(program, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _filled(iou: List[Any]) -> float:
    return 100 * statistics.mean(iou[label] or 0.0 for label in FILLED)


def _report(results: Dict[Any, Dict[str, Any]]) -> None:
    rows = []
    for (name, seed), result in results.items():
        first, last = result["losses"][:SMOOTH_STEPS], result["losses"][-SMOOTH_STEPS:]
        present = [value for value in result["iou"] if value is not None]
        rows.append(
            [
                name,
                seed,
                _filled(result["iou"]),
                100 * statistics.mean(present),
                statistics.mean(first),
                statistics.mean(last),
                result["seconds"],
            ]
        )
    means = {name: statistics.mean(row[2] for row in rows if row[0] == name) for name, _ in results}
    columns = ["trainer", "seed", "filled_miou", "miou", "first_loss", "last_loss", "train_s"]
    report("voc", columns, rows, filled_miou_difference=means["fcn-launch"] - means["PyTorch"])


def _draw(results: Dict[Any, Dict[str, Any]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), dpi=120)
    # The two lie on each other: the peer is drawn broad and pale, below.
    styles = {"PyTorch": {"linewidth": 5, "alpha": 0.35}, "fcn-launch": {"linewidth": 1.2}}
    for (name, seed), result in sorted(results.items(), reverse=True):
        losses = result["losses"]
        smooth = [statistics.mean(losses[max(0, i - SMOOTH_STEPS + 1) : i + 1]) for i in range(len(losses))]
        label = f"{name}, seed {seed}: {_filled(result['iou']):.1f} mean IoU"
        colour = f"C{SEEDS.index(seed)}"
        order = list(styles).index(name)
        axes.plot(range(1, len(smooth) + 1), smooth, colour, label=label, zorder=2 + order, **styles[name])
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss, mean of {SMOOTH_STEPS} steps")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(PICTURE)


if __name__ == "__main__":
    main()
