"""Figures of the code's readability: sizes, decisions, long lines and comments.

    python scripts/code_figures.py [FOLDER ...]

A decision is a branch: if, for, while, except, a conditional expression, a condition of a
comprehension, a comprehension, a case, and every `and` and `or`. Lines are those with code; blank
lines, comments and docstrings are not among them.
"""

from __future__ import annotations

import ast
import io
import statistics
import sys
import tokenize
from pathlib import Path

_DECISIONS = (
    ast.If,
    ast.For,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.comprehension,
    ast.match_case,
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, *_FUNCTIONS)


def docstring_lines(tree: ast.AST) -> set[int]:
    """Numbers of the lines that docstrings take."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node) is not None:
            text = node.body[0]
            lines |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return lines


def decisions(tree: ast.AST) -> int:
    """Number of decisions."""
    count = 0
    for node in ast.walk(tree):
        if isinstance(node, _DECISIONS):
            count += 1
        if isinstance(node, ast.comprehension):
            count += len(node.ifs)
        if isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def comment_lines(source: str) -> set[int]:
    """Numbers of the lines that hold only a comment, or end in one."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    if not body:
        return 0
    return (function.end_lineno or function.lineno) - body[0].lineno + 1


def main(folders: list[str]) -> None:
    """Print the figures of each folder."""
    for folder in folders:
        lengths: list[int] = []
        sizes: list[int] = []
        code = comments = long = count = characters = 0
        for path in sorted(Path(folder).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
            lines = source.splitlines()
            skipped = docstring_lines(tree)
            commented = comment_lines(source)
            plain = [
                line
                for number, line in enumerate(lines, 1)
                if line.strip() and number not in skipped and not line.lstrip().startswith("#")
            ]
            code += len(plain)
            characters += sum(map(len, plain))
            comments += len(commented)
            long += sum(len(line) > 100 for line in lines)
            count += decisions(tree)
            sizes.append(len(lines))
            functions = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)]
            lengths += [body_length(function) for function in functions]
        tenth = statistics.quantiles(lengths, n=10)[-1]
        print(f"{folder}: {len(sizes)} files, longest {max(sizes)} lines, {code} lines of code")
        print(f"  function bodies: median {statistics.median(lengths):g}, 90 % {tenth:g}, ", end="")
        print(f"longest {max(lengths)} lines")
        print(
            f"  decisions per line {count / code:.2f}; mean line {characters / code:.0f} characters"
        )
        total = sum(sizes)
        print(f"  lines over 100 characters: {long} ({100 * long / total:.1f} %)")
        print(f"  lines with a comment: {comments} ({100 * comments / total:.1f} %)")


if __name__ == "__main__":
    main(sys.argv[1:] or ["pyfau", "training"])
