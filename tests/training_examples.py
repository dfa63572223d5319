"""A few questions with their passages, for runs of the trainer."""

from m3_retrievers.training import Example

TOPICS = ["river", "plant", "moon", "bread", "horse", "stone", "music", "winter"]
EXAMPLES = [
    Example(
        query=f"what is said of the {topic} number {n}",
        positives=(f"the {topic} is old and has the number {n} in every tale",),
        negatives=(f"the {TOPICS[n - 3]} is new", f"a {TOPICS[n - 5]} has no number {n}"),
    )
    for n, topic in enumerate(TOPICS)
]
