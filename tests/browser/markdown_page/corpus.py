"""Markdown to compare by: what models write, corners of CommonMark and GFM, and texts made at random."""

import random

TEXTS = [
    "",
    "word",
    "# One\n\n## Two\n### Three ###\n#### Four\n##### Five\n###### Six\n####### Seven\n#none\n",
    "Title\n=====\n\nUnder\n---\ntext\n***\nmore\n- - -\n",
    "para\none\n\n\npara two  \nhard\\\nbreak\n",
    "*a* **b** ***c*** _d_ __e__ ~~f~~ ~g~ a*b*c a_b_c 2 * 3 * 4 **bold*in*bold** *a **b*** **a*\n",
    "`a` ``b`c`` `` ` `` `unclosed\n\n`code with <b> & \\*`\n",
    '[a](https://a.org) [b](https://b.org "title") [c](<https://c.org/x y>) [d]() [e](https://e.org/(x)y)\n',
    "[a](/relative) [b](#part) [c](javascript:alert(1)) [d](ftp://x.org) [e](//x.org/a) [f](tel:123)\n",
    "[a][1], [b][], [b], [None][none] and [1]\n\n[1]: https://one.org 'One'\n[b]: <https://b.org>\n",
    "[later] and [this][Later]\n\n- item [later]\n- two\n\n"
    "| [later] | b |\n|---|---|\n| [x][later] | 1 |\n| y | 2 |\n\n"
    "> quote [later]\n\n[LATER]: https://later.org\n",
    "[a]: https://a.org\n'title over\nlines'\n\n[a]\n",
    '[a]: https://a.org\n"not closed\n\nnext [a]\n',
    "first [a]\n\n[a]: https://one.org\n[a]: https://two.org\n\nsecond [a]\n",
    "> [inner]: https://in.org\n> text\n\n[inner] is known\n",
    "<https://auto.org/path?q=1&r=2> <me@mail.org> <javascript:alert(1)> https://bare.org <b>html</b>\n",
    "[https://bank.org](https://evil.org) [bank.org](https://bank.org.evil.org)"
    " [evil.org](https://evil.org/x)\n",
    "[u](https://user:pw@evil.org) [i](http://[::1]:80/a) [p](https://a.org:8080)"
    " [idn](https://bücher.example/ü)\n",
    "[x](https://EXAMPLE.org/A%20b) [y](https://a.org\\@b.org) [z](https://a.org%00.org)"
    " [m](mailto:a@b.org?x=y)\n",
    "![remote](https://img.org/a.png) ![](https://img.org/b.png) ![rel](/a.png)"
    " [![in](https://i.org/x.png)](https://l.org)\n",
    "![dot](data:image/png;base64,iVBORw0KGgo=) ![svg](data:image/svg+xml;base64,AAAA)"
    " ![x](data:text/html,x)\n",
    "- a\n- b\n- c\n",
    "- a\n\n- b\n- c\n\n\n- d\n",
    "* a\n+ b\n- c\n1. d\n2) e\n",
    "3. three\n4. four\n\n   more of four\n\n   - nested\n   - list\n     1. deep\n     2. deeper\n5. five\n",
    "- a\n  continued\nlazy\n- b\n\n  para\n\n      code\n- c\n-\n- e\n",
    "-\n  foo\n-\n  ```\n  bar\n  ```\n-\n      baz\n",
    "- a\n - b\n  - c\n   - d\n    - e\n",
    "1. a\n\n  2. b\n\n    3. c\n",
    "- a\n-\n\n  b\n- [ ] open\n- [x] done\n",
    "10) foo\n   - bar\n\nout\n\n- foo\n\n  notcode\n\n- foo\n\n<!-- -->\n\n    code\n",
    "- # heading\n- > quote\n- ---\n- | a | b |\n  |---|---|\n  | 1 | 2 |\n",
    "text\n- list after text\n2. not a list after text\n1. a list\n",
    "> quote\nlazy\n> > nested\n> - list\n>   more\n\n> other\n\n>```\n> code\n",
    ">     code\n> para\n>\n> para\n\n> a\n>\n\n> b\n",
    "```python\ndef f(a, b):\n    return a < b and '''x\n\ny'''\n```\nafter\n",
    "~~~~ js {1,3}\n~~~\n```\n~~~~   \n\n````\n```\nstill\n```\n````\n",
    "```\nnot closed\n\n# still code\n",
    "  ```\n  a\n b\n    c\n\td\n  ```\n",
    "```c++\nint x;\n```\n```weird<script>lang\nx\n```\n``` `a\nno fence\n```",
    "    indented\n\n    more\n\n\n  text\n\n\ttab\n",
    "1. do\n   ```bash\n   ls -la\n\n   cd /\n   ```\n2. then\n\n   ```\n   open",
    "| a | b |\n|---|:-:|\n| 1 | 2 |\n| 3 |\n| 4 | 5 | 6 |\n| `a|b` | \\| |\n\nafter\n",
    "a | b\n--|--\n1 | 2\nno pipe\n> quote\n",
    "text\n| a | b |\n| - | -: |\n| x | **y** |\n# heading\n",
    "| a |\n|---|\n\n| only a line |\n\n|---|\n\n| a | b |\n|---|\n",
    "| a | b |\n|:--|--:|\n",
    "$x_1 + y_2$ and $a*b*c$ costs $5 and $10, US$3 $ 4 $ $$z_1*2*$$ \\(a_b_c\\) \\[d*e*f\\] \\$x$ $`a`$\n",
    "$$\nx_1 *a* <b>\n= 2\n- 3\n$$\n\n\\[\na & b \\\\\n# c\n\\]\nafter $$ open\n",
    "text before\n$$ a = b $$\nand after\n\n$$never closed\n*a* still\n\n*emphasis*\n",
    "- item\n  $$\n  x\n  $$\n- \\[ y \\]\n\n> \\[\n> z\n> \\]\n",
    "Price: $5. Then $6, and $7.50; $x$5 a$b$c\n\n$a$$b$ $$ $ $$$ $$$$ $\n",
    "&amp; &lt; &copy; &#35; &#x22; &nope; &quot &#0; &#99999999; a&b\n",
    "\\*not\\* \\[x\\] \\` \\\\ \\a \\\n\n* \\\n",
    "<script>alert(1)</script>\n\n<div onclick=x>\n\n<!-- c -->\n<?php ?>\n<a href=javascript:x>y</a>\n",
    "line\r\nother\rthird\n\r\nnew\r\n- a\r\n- b\r",
    "nul \0 tab\there \u00a0nbsp \u2028sep \u2029par \u200b zero \ufeffbom \x0b\x0c\n",
    "```\na\u2028```\nb\u2029\n```\nout\n",
    "\u00a0a\u00a0\n\n\u3000b\u3000\n\n# \u00a0c\u00a0\n\n- \u00a0d\n\n"
    "|\u00a0a|\u3000|\n|---|---|\n|\u2003|b\u2003|\n",
    "emoji 👩‍👩‍👧 **粗体** *斜体*。 עברית **מודגש** العربية `كود` ﷽ İI\n",
    "**中文（强调）**文字 **「引用」**です。*foo*bar\n",
    "a\n\n\n\n\n\nb\n\n   \n\t\nc\n",
    "***\n* * *\n**a\n** b**\n__a__b__\n",
    "[not a link] [x] (y) [x](unclosed\n\n[a](b [c](d) [e [f](https://f.org) g](https://g.org)\n",
    "![unclosed ![a](https://b.org/c.png\n\n[half](https://x.org\n",
    "1986\\. A year\n\n1986. Another\n\n0. zero\n1. one\n\n999999999. nine\n\n1234567890. ten\n",
    "term\n: not a definition list\n\n[^1]: no footnote\n\nuse[^1]\n",
    "# heading with `code` and [link](https://l.org) #\n\nSetext *em*\n===\n\n#\n\n## \n",
    "a  \nb\nc   \n\nd\\\ne\n",
    "Foo\nbar\n***\n**bold** at the start\n---\nx\n--\n\n===\n",
    "| `a\\|b` | [x](https://a.org/\\|) |\n|---|---|\n| \\\\| | |\n||\n| |\n|",
    "> > > deep\n> > less\n> least\nlazy\n\n- - - not hr\n- - a\n  - b\n",
    "*" * 50 + "a" + "*" * 50 + "\n",
    "[" * 60 + "a" + "]" * 60 + "\n",
    "> " * 120 + "deep\n",
    "[a](https://a.example) " * 1001 + "\n",
    "\\( " * 30 + "x \\) \\[ y\n",
    "- " * 60 + "deep\n",
]

_LINES = [
    *["", "", "", " ", "text", "more *text*", "**bold** and `code`", "    indented", "\ttab", "   three"],
    *[
        "# h",
        "## h *e*",
        "===",
        "---",
        "***",
        "- - -",
        "- a",
        "- b",
        "  - nested",
        "    - deep",
        "* star",
        "+ plus",
    ],
    *[
        "1. one",
        "2. two",
        "3) three",
        "   cont",
        "  cont",
        "-",
        "1.",
        "> q",
        "> > qq",
        ">",
        "> - ql",
        "> ```",
    ],
    *[
        "```",
        "```js",
        "````",
        "~~~",
        "let x = 1; // `a`",
        "  ```",
        "| a | b |",
        "|---|---|",
        "| 1 | 2 |",
        "| 3",
    ],
    *[
        "a | b",
        "-|-",
        "$$",
        "$$ x",
        "x $$",
        "\\[",
        "\\]",
        "$a_b$",
        "\\(c_d\\)",
        "costs $5",
        "[a]: https://a.org",
    ],
    *[
        "[b]: /b",
        "[a]: <https://c.org> 'title",
        "end'",
        "[a] [b][a] [c]",
        "[x](https://x.org)",
        "[half](https://h",
    ],
    *[
        "![i](https://i.org/a.png)",
        "<b>html</b>",
        "<https://auto.org>",
        "a  ",
        "b\\",
        "*open",
        "**open",
        "`open",
    ],
    *[
        "- [ ] task",
        "  [a]: https://in.org",
        "> [c]: https://q.org",
        "+",
        "&amp; &copy",
        "~~s~~",
        "_u_",
        "__",
    ],
]


def random_text(seed: int, lines: int = 14) -> str:
    """Return lines of Markdown in no sensible order; the same for the same ``seed``."""
    choose = random.Random(seed)
    ends = ["\n"] * 12 + ["\r\n", "\n\n"]
    text = "".join(choose.choice(_LINES) + choose.choice(ends) for _ in range(choose.randint(1, lines)))
    return text if choose.random() < 0.7 else text.rstrip("\n")


def pieces_of(text: str, seed: int) -> list[str]:
    """Return ``text`` cut at random places: often small pieces, as tokens are."""
    choose = random.Random(seed)
    most = choose.choice([1, 3, 8, 40, 400])
    pieces, at = [], 0
    while at < len(text):
        size = choose.randint(1, most)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def long_answer(tokens: int, seed: int = 1) -> list[str]:
    """Return a mixed answer of so many tokens: prose, long code, a long list, a long table."""
    choose = random.Random(seed)
    words = (
        "the log keeps every event so a reader that comes back sees **all** of it and `nothing` twice".split()
    )
    pieces: list[str] = []

    def prose(count: int) -> None:
        pieces.extend(choose.choice(words) + " " for _ in range(count))

    part = 0
    while len(pieces) < tokens:
        part += 1
        pieces.extend([f"## Part {part}", "\n\n"])
        for _ in range(4):
            prose(60)
            pieces.append("\n\n")
        pieces.append("```python\n")
        for line in range(120):
            pieces.extend(
                ["def ", f"step_{line}", "(a, b):", "\n    return ", "a + b", f"  # {line}", "\n\n"]
            )
        pieces.append("```\n\n")
        for item in range(60):
            pieces.extend(["- ", f"**item {item}** "])
            prose(8)
            pieces.append("\n")
        pieces.append("\n| number | name | note |\n|---:|---|---|\n")
        for row in range(80):
            pieces.extend(["| ", str(row), " | ", f"name {row}", " | ", "a *note*", " |\n"])
        pieces.append("\n")
    return pieces[:tokens]
