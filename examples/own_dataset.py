# examples/own_dataset.py
"""A data set of one's own: a function that returns rows, labels and splits."""

import random

import llm_qfl


def motifs(rows: int = 200, seed: int = 0) -> llm_qfl.Dataset:
    """Return random DNA, of which every second sequence holds TATA boxes."""
    draw = random.Random(seed)

    def split(count: int) -> tuple[list[str], list[int]]:
        labels = [number % 2 for number in range(count)]
        texts = ["".join(draw.choices("ACGT", k=60)) + "TATAAA" * 3 * label for label in labels]
        return texts, labels

    classes = ["background", "promoter"]
    return llm_qfl.Dataset(train=split(rows), test=split(rows // 2), kind="dna", classes=classes)


if __name__ == "__main__":
    rows = {"options": "rows=120", "server_rows": 20}
    few = {"rounds": 2, "clients": 2, "train": {"steps": 5}, "llm": {"epochs": 1}}
    result = llm_qfl.run(dataset=motifs, data=rows, quiet=True, **few)
    print(f"test accuracy {result.accuracy:.2f}")
