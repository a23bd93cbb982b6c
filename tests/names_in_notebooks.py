"""Finds names in the code of notebooks that do not exist, without running the notebooks.

Known are modules and what is imported from them, the class of what a function returns by its
annotation, and the fields of configs. What is not known, such as the variables of a Dataset, counts
as right.
"""

import ast
import builtins
import importlib
import inspect
import re
import typing

from ml_collections import ConfigDict

from vitcnn.config import schema
from vitcnn.lookup import fields_of

CONFIGS = {
    "measurement": schema.Measurement,
    "training": schema.Training,
    "ablation": schema.Ablation,
    "evaluation": schema.Evaluation,
}
UNKNOWN = object()


class _Instance:
    """Something of a class, or a config with these fields."""

    def __init__(self, names):
        self.names = names


def wrong_names(code: str) -> list[str]:
    """Returns a sentence for each name in the code that does not exist."""
    tree = ast.parse(code)
    checker = _Checker(_assigned(tree) | set(dir(builtins)))
    checker.visit(tree)
    return checker.wrong


def _assigned(tree):
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).split(".")[0])
    return names


class _Checker(ast.NodeVisitor):
    def __init__(self, defined):
        self.defined, self.known, self.wrong = defined, {}, []

    def visit_Import(self, node):
        for alias in node.names:
            if alias.name == "torch":  # takes seconds to import, and nobody changes its names here
                continue
            module = importlib.import_module(alias.name)
            root = alias.name.split(".")[0]
            self.known[alias.asname or root] = (
                module if alias.asname else importlib.import_module(root)
            )

    def visit_ImportFrom(self, node):
        module = importlib.import_module(node.module)
        for alias in node.names:
            try:
                value = getattr(module, alias.name)
            except AttributeError:
                try:
                    value = importlib.import_module(f"{node.module}.{alias.name}")
                except ModuleNotFoundError:
                    self.wrong.append(f"{node.module} has no {alias.name}")
                    continue
            self.known[alias.asname or alias.name] = value

    def visit_Assign(self, node):
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.known[target.id] = self.returned(node.value)

    def visit_Name(self, node):
        if isinstance(node.ctx, ast.Load) and node.id not in self.defined:
            self.wrong.append(f"{node.id} is not defined")

    def visit_Attribute(self, node):
        self.generic_visit(node)
        self.value(node, report=True)

    def visit_Call(self, node):
        self.generic_visit(node)
        function = self.value(node.func)
        if function is UNKNOWN or not callable(function):
            return
        try:
            parameters = inspect.signature(function).parameters
        except ValueError:  # of some functions in C
            return
        allowed = set(parameters)
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            part = schema.PARTS.get("model" if function.__name__ == "load" else function.__name__)
            names = [a.value for a in node.args if isinstance(a, ast.Constant)]
            # Of a plugin that the notebook itself writes ("my_package.my_file") nothing is known.
            if part is None or len(names) < len(part.identity) or "." in str(names[:1]):
                return
            try:
                allowed |= set(part.fields(*names[: len(part.identity)]))
            except ValueError as error:
                self.wrong.append(str(error))
                return
        for keyword in node.keywords:
            if keyword.arg and keyword.arg not in allowed:
                self.wrong.append(f"{ast.unparse(node.func)} takes no {keyword.arg}")

    def value(self, node, report=False):
        """Returns what an expression stands for: a thing, an `_Instance`, or `UNKNOWN`."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id, UNKNOWN)
        if not isinstance(node, ast.Attribute):
            return UNKNOWN
        owner = self.value(node.value)
        if owner is UNKNOWN:
            return UNKNOWN
        if isinstance(owner, _Instance):
            exists, value = node.attr in owner.names, UNKNOWN
        else:
            exists, value = hasattr(owner, node.attr), getattr(owner, node.attr, UNKNOWN)
        if not exists and report:
            self.wrong.append(f"{ast.unparse(node.value)} has no {node.attr}")
        return value

    def returned(self, node):
        """Returns what the value of an assignment stands for."""
        if not isinstance(node, ast.Call):
            return self.value(node)
        function = self.value(node.func)
        if function is UNKNOWN:
            return UNKNOWN
        if getattr(function, "__module__", "") == "vitcnn.config.build":
            fields = CONFIGS.get(function.__name__)
            return _Instance(set(fields_of(fields)) | set(dir(ConfigDict))) if fields else UNKNOWN
        cls = function if isinstance(function, type) else None
        if inspect.isfunction(function):
            try:
                cls = typing.get_type_hints(function).get("return")
            except (NameError, TypeError):
                cls = None
        if not isinstance(cls, type) or cls is typing.Any or hasattr(cls, "__getattr__"):
            return UNKNOWN
        fields = getattr(cls, "__annotations__", {})
        made = inspect.getsource(cls) if cls.__module__.startswith("vitcnn") else ""
        own = set(re.findall(r"self\.(\w+) *(?::[^=]+)?= ", made))
        return _Instance(set(dir(cls)) | set(fields) | own)
