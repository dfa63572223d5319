"""Train candidates side by side within a time, then measure each, and how much of each to take.

Every CONFIG is one of the project's own training configurations. A first few steps say how long
one takes while the others run beside it; the run then has as many as fit into ``--seconds``, and
at most those of the configuration::

    python benchmarks/m3_mini/runs.py CONFIG … --seconds 110 --data FOLDER … --out RESULTS
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from m3_retrievers.training import read_examples, read_settings, train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--whole", action="store_true", help="all documents of each collection")
    parser.add_argument("--backbone", default="m3-mini/backbone")
    parser.add_argument("--probe", type=int, default=40, help="steps that say how long one takes")
    parser.add_argument("--one", action="store_true", help="this configuration, here")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.one:
        return one(options)
    again = [str(Path(__file__).resolve()), "--one", "--seconds", str(options.seconds)]
    again += ["--probe", str(options.probe)]
    again += ["--out", str(options.out), "--backbone", options.backbone]
    again += ["--whole"] if options.whole else []
    again += ["--scales", *map(str, options.scales), "--data", *map(str, options.data)]
    running = []
    for config in options.configs:
        with (options.out / f"{config.stem}.log").open("w") as log:
            command = [sys.executable, again[0], str(config), *again[1:]]
            running.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))
    failed = [
        config.stem
        for config, process in zip(options.configs, running, strict=True)
        if process.wait()
    ]
    print(f"failed: {failed}" if failed else "all done")
    return None


def one(options: argparse.Namespace) -> None:
    from choose import measured

    (config,) = options.configs
    began = time.perf_counter()
    settings = read_settings(config)
    examples = [line for path in settings.data for line in read_examples(path)]
    probe = dataclasses.replace(
        settings, steps=options.probe, log_every=options.probe, out=f"{settings.out}_probe"
    )
    log = train(probe, examples, resume=False).log
    per_step = 1 / float(log[-1]["train_steps_per_second"])
    steps = max(10, min(settings.steps, int(options.seconds / per_step) // 10 * 10))
    shutil.rmtree(probe.out)
    print(f"{per_step * 1000:.0f} ms a step beside the others: {steps} steps", flush=True)
    settings = dataclasses.replace(settings, steps=steps, log_every=max(1, steps // 20))
    trained = train(settings, examples, resume=False)
    seconds = time.perf_counter() - began
    print(f"trained after {seconds:.0f} s", flush=True)
    shutil.copy(trained.folder / "log.jsonl", options.out / f"{config.stem}.jsonl")
    adapter = trained.folder / "adapter"
    target = options.out / f"{config.stem}.tar"
    shutil.make_archive(str(target.with_suffix("")), "tar", adapter)
    result = {"steps": steps, "seconds": seconds, "ms_a_step": per_step * 1000, "scales": {}}
    for scale in options.scales:
        result["scales"][f"{scale:g}"] = measured(
            [adapter],
            options.data,
            scale=scale,
            backbone=options.backbone,
            whole=options.whole,
        )
        (options.out / f"{config.stem}.json").write_text(json.dumps(result))
    print(f"measured after {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
