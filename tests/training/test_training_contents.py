import m3_retrievers.training as room


def test_the_table_of_contents_is_what_it_is():
    assert room.__all__ == [
        "BatchSettings",
        "Example",
        "LoraSettings",
        "LossSettings",
        "Mining",
        "MiningSettings",
        "RetroMAESettings",
        "SpladeSettings",
        "TrainSettings",
        "Trained",
        "mine_negatives",
        "pretrain",
        "question_pairs",
        "read_examples",
        "read_settings",
        "train",
        "write_examples",
    ]
    for name in room.__all__:
        assert getattr(room, name).__name__ == name
