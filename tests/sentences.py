"""Sentences: in many scripts, of which the tests' tokenizers are made; and six to search."""

import string

SENTENCES = (
    "A librarian answers a question by finding the one page that matters.",
    "The river rose three metres overnight, and the bridge was closed before dawn.",
    "Hybrid retrieval adds a dense score, a lexical score and a late interaction score.",
    "She repaired the old clock with a pair of tweezers and a great deal of patience.",
    "How do I read a file row by row, and what happens when a row is missing?",
    "Version 3.11 of the package, released on 2024-05-01, costs 0 euros (and 50% less memory).",
    "Die Bibliothekarin sucht nicht das längste Buch, sondern die richtige Seite.",
    "Über Nacht stieg der Fluss; die Brücke blieb bis zum Morgen gesperrt.",
    "Donaudampfschifffahrtsgesellschaften gibt es heute nur noch wenige.",
    "La bibliothécaire a retrouvé la page, mais où était passée la première leçon ?",
    "El río creció tres metros; ¿quién cerró el puente antes del amanecer?",
    "图书管理员很快找到了那一页。",
    "昨天夜里河水上涨了三米,桥在天亮之前就关闭了。",
    "混合检索把三种分数加在一起。",
    "図書館の司書は正しいページをすぐに見つけました。",
    "وجدت أمينة المكتبة الصفحة الصحيحة بسرعة.",
    "ارتفع النهر ثلاثة أمتار ليلا وأغلق الجسر قبل الفجر.",
    "Библиотекарь быстро нашла нужную страницу.",
    "За ночь река поднялась на три метра, и мост закрыли.",
    "पुस्तकालय में सही पन्ना जल्दी मिल गया।",
    "도서관 사서는 알맞은 쪽을 빨리 찾았다.",
    "הספרנית מצאה את העמוד הנכון במהירות.",
    "Η βιβλιοθηκονόμος βρήκε τη σωστή σελίδα.",
    "def read(path: str) -> list[str]: return open(path).read().split('\\n')",
    " ".join(string.ascii_letters + string.digits + string.punctuation),
)
SIX = (
    "The river rose three metres overnight.",
    "A librarian finds the one page that matters.",
    "The bridge over the river was closed before dawn.",
    "Hybrid retrieval adds a dense score and a lexical score.",
    "How do I read a file row by row?",
    "She repaired the old clock with the tweezers.",
)
