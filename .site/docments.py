"""Comments on a parameter's own line, above it, as its description on the API pages: a griffe extension.

    def area(
        # (..., 4) xyxy
        boxes: Tensor,
    ) -> Tensor:

The comments are read from the source; nothing is imported.
"""
import ast
import re

import griffe


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


class Docments(griffe.Extension):
    "Adds the comments to the docstrings, in the form that the parser knows."

    def on_function_instance(self, *, node, func, **kwargs) -> None:
        self.describe(node, func, "Args")

    def on_class_instance(self, *, node, cls, **kwargs) -> None:
        self.describe(node, cls, "Attributes")

    def on_class_members(self, *, cls, **kwargs) -> None:
        for name, member in cls.members.items():  # fields are in the signature already; __post_init__ and the like are inner works
            if not member.docstring and (member.is_attribute or (name.startswith("__") and name != "__init__")): member.public = False

    def describe(self, node, thing, section: str) -> None:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)): return
        found = comments(node, thing.lines_collection[thing.filepath])
        if not found: return
        listed = f"\n\n{section}:\n" + "\n".join(f"    {name}: {text}" for name, text in found.items())
        if thing.docstring: thing.docstring.value = thing.docstring.value.rstrip() + listed
        else: thing.docstring = griffe.Docstring(listed.strip(), lineno=thing.lineno, endlineno=thing.lineno, parent=thing)
