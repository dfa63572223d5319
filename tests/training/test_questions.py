import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import FakeListChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import RunnableLambda
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM

from m3_retrievers.errors import InputError, TrainingWarning
from m3_retrievers.training.data import Example
from m3_retrievers.training.questions import PROMPT, question_pairs
from sentences import SENTENCES

STORY = "The king slept. A fox came in! Who saw it? Nobody did.\n\nThe crown was gone."
LONG = "\n".join(SENTENCES)


def passage(prompt: str) -> str:
    """Answer with the passage itself, so that a pair shows what was asked about."""
    return prompt


def asked(document, *, size, seed=0, questions=1):
    pairs = question_pairs(
        [document],
        passage,
        prompt="{passage}",
        passage_chars=size,
        questions=questions,
        seed=seed,
    )
    return [pair.query for pair in pairs]


def test_a_question_is_paired_with_the_whole_document():
    pairs = question_pairs([STORY], lambda prompt: "  Who came in?\n", passage_chars=20)
    assert list(pairs) == [Example("Who came in?", (STORY,), source="questions")]


def test_a_short_document_is_its_own_passage():
    assert asked(f" {STORY}\n", size=len(STORY)) == [STORY]


def test_passages_start_and_end_with_sentences():
    # of 32 characters: two sentences of the first line, or what is left of it
    possible = {
        "The king slept. A fox came in!",
        "A fox came in! Who saw it?",
        "Who saw it? Nobody did.",
        "Nobody did.\n\nThe crown was gone.",
    }
    assert {asked(STORY, size=32, seed=seed)[0] for seed in range(40)} == possible


def test_sentences_without_white_space_are_told_apart():
    text = "图书管理员找到了那一页。河水上涨了三米。桥在天亮之前就关闭了。"
    found = {asked(text, size=12, seed=seed)[0] for seed in range(30)}
    assert found == {"图书管理员找到了那一页。", "河水上涨了三米。", "桥在天亮之前就关闭了。"}


def test_a_text_without_sentences_is_cut_between_words():
    found = {asked("alpha beta gamma delta", size=11, seed=seed)[0] for seed in range(30)}
    assert found == {"alpha beta", "gamma delta"}
    assert {asked("abcdefg", size=3, seed=seed)[0] for seed in range(30)} == {"abc", "def", "g"}


def test_several_questions_come_from_different_places_until_there_are_no_more():
    found = asked(STORY, size=32, questions=3)
    assert len(found) == len(set(found)) == 3
    assert len(asked(STORY, size=32, questions=50)) == 4


@given(st.text(max_size=200), st.integers(1, 60), st.integers(0, 3))
def test_passages_are_parts_of_the_document_of_at_most_the_length_asked(document, size, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # blank documents
        for one in asked(document, size=size, seed=seed, questions=4):
            assert one in document
            assert 0 < len(one) <= size


def test_the_seed_decides_and_nothing_else():
    def run(seed):
        pairs = question_pairs(
            [LONG] * 5, passage, prompt="{passage}", passage_chars=200, seed=seed
        )
        return [pair.query for pair in pairs]

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert len(set(run(3))) > 1


def test_the_prompt_holds_the_passage_whatever_braces_either_has():
    prompts = []
    template = 'Answer as {"question": …}: {passage}'
    list(question_pairs(["a {b} {0}"], lambda p: prompts.append(p) or "q", prompt=template))
    list(question_pairs(["a {b} {0}"], lambda p: prompts.append(p) or "q"))
    assert prompts[0] == 'Answer as {"question": …}: a {b} {0}'
    assert prompts[1] == PROMPT.replace("{passage}", "a {b} {0}")


def test_a_list_of_answers_makes_a_pair_each():
    pairs = list(question_pairs(["text"], lambda prompt: ["one?", " ", "two?"]))
    assert [pair.query for pair in pairs] == ["one?", "two?"]


def test_a_langchain_chat_model_asks():
    model = FakeListChatModel(responses=["Who slept?", "Who came?"])
    pairs = question_pairs([STORY, LONG], model)
    assert [(pair.query, pair.positives) for pair in pairs] == [
        ("Who slept?", (STORY,)),
        ("Who came?", (LONG,)),
    ]


def test_a_langchain_message_of_blocks_gives_its_text():
    blocks = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "Who slept?"}]
    model = GenericFakeChatModel(messages=iter([AIMessage(content=blocks)]))
    (pair,) = question_pairs([STORY], model)
    assert pair.query == "Who slept?"
    assert type(pair.query) is str


def test_a_langchain_chain_asks():
    template = PromptTemplate.from_template("Ask about: {text}")
    chain = RunnableLambda(lambda prompt: {"text": prompt}) | template
    model = RunnableLambda(lambda value: AIMessage(f"{value.text}?"))
    (pair,) = question_pairs(["Bees"], chain | model | StrOutputParser(), prompt="{passage}")
    assert pair.query == "Ask about: Bees?"


class Curious(CustomLLM):
    """A LlamaIndex LLM that asks about the last word."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt, formatted=False, **kwargs):
        return CompletionResponse(text=f"What is {prompt.split()[-1]}?")

    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError


def test_a_llama_index_llm_asks():
    assert [pair.query for pair in question_pairs(["Bees dance"], Curious())] == ["What is dance?"]
    (pair,) = question_pairs(["Bees dance"], MockLLM(max_tokens=2))
    assert pair.query == "text text"


def test_empty_answers_and_documents_are_left_out_and_counted():
    answers = iter(["", "Who?", ["", " "]])
    documents = ["one", "two", "three", " \n", ""]
    with pytest.warns(TrainingWarning, match="4 of 5 passages"):
        pairs = list(question_pairs(documents, lambda prompt: next(answers)))
    assert [(pair.query, pair.positives) for pair in pairs] == [("Who?", ("two",))]


def test_documents_are_read_one_at_a_time():
    def documents():
        yield "first"
        raise AssertionError("read too far")

    assert next(question_pairs(documents(), lambda prompt: "q?")).positives == ("first",)
    assert list(question_pairs([], passage)) == []


@pytest.mark.parametrize("answer", [None, 3, {"question": "q?"}, [None]])
def test_an_answer_that_is_no_text_is_refused(answer):
    with pytest.raises(InputError, match="ask expects to bring a string"):
        list(question_pairs(["text"], lambda prompt: answer))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"documents": "one text"}, "documents"),
        ({"ask": "a model's name"}, "ask"),
        ({"ask": FakeListChatModel}, "ask"),
        ({"prompt": "no place"}, "prompt"),
        ({"passage_chars": 0}, "passage_chars"),
        ({"questions": 0}, "questions"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_asked(arguments, named):
    given = {"documents": ["text"], "ask": passage, **arguments}
    with pytest.raises(InputError, match=f"^{named} expects"):
        question_pairs(given.pop("documents"), given.pop("ask"), **given)
