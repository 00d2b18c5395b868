"""Writes device.json from the facts that bench/device.sh noted so far; with --table also prints a table of the rows.

Facts are lines: stages.tsv and tests.tsv (name, status, seconds, reason), machine.tsv (key, value), rows.jsonl (what
bench_cuda_vit and cuda_torch.py print). --table is the last call: only then the run can have passed.
"""
import json
import os
import sys

# What is compared: PyTorch's name for a work -> this library's. Replay is compared twice.
COUNTERPARTS = {"train": "train", "forward": "forward", "replay": "replay", "replay_kept": "replay"}


def table(path, columns):
    lines = open(path, encoding="utf-8").read().splitlines() if os.path.exists(path) else []
    return [dict(zip(columns, line.split("\t"))) for line in lines]


def outcomes(path):
    return [{**line, "seconds": int(line["seconds"])} for line in table(path, ("name", "status", "seconds", "reason"))]


def json_lines(path):
    """A program that was stopped leaves half a line."""
    found = []
    for line in open(path, encoding="utf-8") if os.path.exists(path) else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def compared(lines):
    """Rows: this library's images a second, PyTorch's by mode, and the ratio to PyTorch's fastest mode."""
    ours, theirs, errors = {}, {}, []
    for line in lines:
        if "error" in line or "stopped" in line:
            errors.append(line)
        elif "work" in line:
            key = (line["case"], line["dtype"], line["batch"], line["work"])
            if "mode" in line:
                theirs.setdefault(key, {})[line["mode"]] = line["images_per_s"]
            else:
                ours[key] = line
    rows, groups = [], list(dict.fromkeys(key[:3] for key in [*ours, *theirs]))
    for key in sorted(dict.fromkeys([*ours, *theirs]), key=lambda key: groups.index(key[:3])):
        case, dtype, batch, work = key
        line = ours.get((case, dtype, batch, COUNTERPARTS.get(work, work)), {})
        mine, modes = line.get("images_per_s"), theirs.get(key, {})
        step = ours.get((case, dtype, batch, "train"), {}).get("images_per_s")
        best = max(modes.values(), default=None)
        rows.append({"case": case, "work": work, "dtype": dtype, "batch": batch, "ours": mine, "torch": best,
                     "ratio": round(mine / best, 3) if mine and best else None, "torch_modes": modes,
                     "in_training_steps": round(step / mine, 2) if mine and step else None,
                     "share_of_matrix_rate": line.get("share_of_matrix_rate")})
    return rows, errors


def report(facts, complete):
    lines = json_lines(os.path.join(facts, "rows.jsonl"))
    rows, errors = compared(lines)
    stages, cases = outcomes(os.path.join(facts, "stages.tsv")), outcomes(os.path.join(facts, "tests.tsv"))
    count = {status: sum(c["status"] == status for c in cases)
             for status in ("passed", "failed", "skipped", "not_reached")}
    return {"machine": {line["key"]: line["value"] for line in table(os.path.join(facts, "machine.tsv"), ("key", "value"))},
            "complete": complete,
            "passed": complete and all(s["status"] in ("passed", "skipped") for s in stages),
            "seconds": sum(s["seconds"] for s in stages), "stages": stages, "tests": {**count, "cases": cases},
            "matrix_tflops": {line["dtype"]: line["matrix_tflops"] for line in lines if "matrix_tflops" in line},
            "rows": rows, "torch_problems": errors}


def markdown(rows):
    print("| case | arithmetic | batch | work | this library, images/s | PyTorch, images/s | its mode | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        mode = max(row["torch_modes"], key=row["torch_modes"].get, default="")
        cells = [row["case"], row["dtype"], row["batch"], row["work"], row["ours"], row["torch"], mode, row["ratio"]]
        print("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")


def main():
    facts, out = sys.argv[1:3]
    last = "--table" in sys.argv
    document = report(facts, last)
    path = os.path.join(out, "device.json")
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    os.replace(path + ".new", path)
    if last and document["rows"]:
        markdown(document["rows"])


if __name__ == "__main__":
    main()
