"""Comments on a parameter's own line, above it, as its description on the API pages: a griffe extension.

    def area(
        # (..., 4) xyxy
        boxes: Tensor,
    ) -> Tensor:

The comments are read from the source; nothing is imported. An example of a public function or class comes from the notebook that
builds it: the first short cell after its definition that calls it, with what it printed. Where there is none, the first statement that
calls it in the lesson that builds it, or in a lesson that imports it.
"""
import ast
import functools
import json
import re
from pathlib import Path

import griffe

NOTEBOOKS, LONG = Path(__file__).resolve().parent.parent / "nbs", 9  # lines of an example, and of what it prints


def printed(cell: dict) -> str:
    "What a cell printed, if it is short and nothing else came of it."
    texts = ["".join(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in cell["outputs"]]
    text = "".join(texts).rstrip()
    shown = all(output["output_type"] in ("stream", "execute_result") for output in cell["outputs"])
    return text if shown and text.count("\n") < LONG and "\x1b" not in text else ""


def statement(text: str, calls) -> str:
    "The first short statement of a cell that calls something, definitions apart."
    try: body = ast.parse(text).body
    except SyntaxError: return ""  # a magic of IPython
    told = (ast.get_source_segment(text, node) for node in body if not isinstance(node, (ast.FunctionDef, ast.ClassDef)))
    return next((code for code in told if code.count("\n") < LONG and calls.search(code)), "")


@functools.cache
def examples() -> dict:
    "{(module, name): Markdown of an example}."
    books, found = [], {}
    for path in sorted(path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts):
        cells = [(cell, "".join(cell["source"])) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
        text = "\n".join(source for _, source in cells)
        books.append((path, cells, text, match[1] if (match := re.search(r"^#\|\s*default_exp\s+(\S+)", text, re.M)) else None))
    for _, cells, _, module in books:
        for k, (_, source) in enumerate(cells):
            if not module or not re.match(r"#\|\s*export\b", source): continue
            for name in re.findall(r"^(?:def|class) ([A-Za-z]\w*)", source, re.M):
                calls, taken = re.compile(rf"(?<![.\w]){name}\("), rf"from nanodetr\.{re.escape(module)} import .*\b{name}\b"
                near = (f"```python\n{code.strip()}\n```" + (f"\n\n```text\n{text}\n```" if (text := printed(cell)) else "") for cell, code in cells[k + 1:]
                        if not code.startswith("#|") and code.count("\n") < LONG and calls.search(code))
                far = (f"```python\n{code}\n```" for path, others, text, builds in books if path.parent == NOTEBOOKS and (builds == module or re.search(taken, text))
                       for _, other in others if not other.startswith("#|") and (code := statement(other, calls)))
                if example := next(near, None) or next(far, None): found[f"nanodetr.{module}", name] = example
    return found


def comments(node: ast.AST, lines: list) -> dict:
    "{parameter or field: the comment above it, or at the end of its line}."
    if isinstance(node, ast.ClassDef):
        named = [(n.target.id, n.lineno) for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    else:
        a = node.args
        every = [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]
        named = [(arg.arg, arg.lineno) for arg in every if arg.lineno > node.lineno]
    found = {}
    for name, line in named:
        above, k = [], line - 2
        while k >= 0 and (match := re.match(r"\s*#(?!\|)\s?(.*)", lines[k])):
            above.insert(0, match[1])
            k -= 1
        if above: found[name] = " ".join(above)
    return found


def parameters(node: ast.AST) -> list:
    "The names that a function takes, or a class when it is made."
    if isinstance(node, ast.ClassDef):
        made = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        fields = [n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        return fields if made is None else parameters(made)
    a = node.args
    return [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs) if arg.arg not in ("self", "cls")]


def told(docstring: str, names: list) -> tuple:
    """(the docstring without them, {parameter: what is said of it}), from sentences such as "boxes (N,4) xyxy; size: in pixels".

    A sentence or line that begins with a parameter and a colon, or a parameter and its shape, is a list of them, up to a full stop.
    """
    if not names: return docstring, {}
    one = rf"(?:{'|'.join(map(re.escape, names))})(?:: |(?= \((?:[^()\n]*,[^()\n]*)\)))"
    found = {}

    def take(match):
        for item in re.split(rf"; (?={one})", " ".join(match[0].split()).rstrip(".")):
            name, text = re.match(rf"({one})(.*)", item).groups()
            found[name.rstrip(": ")] = text.strip().rstrip(";")
        return ""
    summary, _, body = docstring.partition("\n")
    body = re.sub(rf"(?m)(?:^|(?<=\. )){one}(?:(?!\.(?:\s|$))[\s\S])*?(?=\.\s|\.?\Z|\n\n)\.?", take, "\n".join(line.strip() for line in body.split("\n")))
    return (summary + "\n" + re.sub(r"\n{3,}", "\n\n", body)).rstrip(), found


class Docments(griffe.Extension):
    "Adds the comments to the docstrings, in the form that the parser knows."

    def on_function_instance(self, *, node, func, **kwargs) -> None:
        self.describe(node, func, "Args")
        self.show(func)

    def on_class_instance(self, *, node, cls, **kwargs) -> None:
        self.describe(node, cls, "Attributes")
        self.show(cls)

    def on_class_members(self, *, cls, **kwargs) -> None:
        for name, member in cls.members.items():  # fields are in the signature already; __post_init__ and the like are inner works
            if not member.docstring and (member.is_attribute or (name.startswith("__") and name != "__init__")): member.public = False

    def show(self, thing) -> None:
        example = examples().get((thing.module.path, thing.name)) if thing.parent.is_module else None
        if not example: return
        listed = "\n\nExamples:\n" + "\n".join(f"    {line}" if line else "" for line in example.split("\n"))
        if thing.docstring: thing.docstring.value = thing.docstring.value.rstrip() + listed
        else: thing.docstring = griffe.Docstring(listed.strip(), lineno=thing.lineno, endlineno=thing.lineno, parent=thing)

    def describe(self, node, thing, section: str) -> None:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): return
        names, found = parameters(node), {}
        if thing.docstring: thing.docstring.value, found = told(thing.docstring.value, names)
        found |= comments(node, thing.lines_collection[thing.filepath])
        if not found: return
        listed = f"\n\n{section}:\n" + "\n".join(f"    {name}: {text}" for name, text in found.items())
        if thing.docstring: thing.docstring.value = thing.docstring.value.rstrip() + listed
        else: thing.docstring = griffe.Docstring(listed.strip(), lineno=thing.lineno, endlineno=thing.lineno, parent=thing)
