"""RULER (arXiv:2404.06654): needles, variable tracking, common words and frequent words.

    needles.py         needles in a haystack: eight variants, by fields
    variables.py       variable tracking
    common_words.py    the ten most common words of a list
    frequent_words.py  the three most frequent words of a text that follows Zipf's law

The sentences, keys and words are of our own making, and the haystack of essays is a text that the user names, or
built-in sentences. The published settings are those of specs/suites/ruler.yaml. RULER's two question-answering tasks
take their paragraphs from SQuAD and HotpotQA, which cannot be generated: they are not here. As published, several
answers are right in any order (`Passage.ordered`).
"""
