"""Small faults to put into a function, one at a time: that is what a *mutant* is.

    constants         n -> n + 1, n - 1; True <-> False; module constants, wherever they are used
    comparisons       < <-> <=, > <-> >=, == <-> !=, in <-> not in, is <-> is not
    arithmetic        + <-> -, << <-> >>, & <-> |, * -> +, // -> *, % -> //
    bits              one operand of & or | left out, ~x -> x
    logic             and <-> or, `not` left out, one side of a conditional expression
    branches          always taken, never taken; a loop never entered
    statements        left out; an augmented assignment turned round or made plain
    results           `return f(x)` -> `return 0`; constants as above

Left out are results that no caller looks at: a kernel's function returns something because a C
function does, and 0 there means nothing. Texts in messages are for people and left alone, too.
Nothing is written to disk: a mutant is the compiled code of its function, to be put in its place.
"""

import ast
import copy
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Mult: ast.Add,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
}

Line = tuple[str, int]  # module, line


@dataclass
class Mutant:
    """One fault: which code of `function` to run instead, or which value to give a constant."""

    module: str
    function: str  # "redo", "Part.load"; the name of a module's constant
    statement: str  # its first line
    change: str
    lines: frozenset[Line]  # running one of them may notice
    tree: ast.stmt
    parent: ast.AST
    field: str
    index: int | None
    replacement: ast.AST
    number: int = 0  # among equal ones

    @property
    def is_constant(self) -> bool:
        return isinstance(self.tree, ast.Assign)

    @property
    def key(self) -> str:
        """By what it is known in lists: its text, so that it does not outlive a change of that."""
        again = f" ({self.number + 1})" if self.number else ""
        return f"{self.module}.{self.function}: {self.statement}: {self.change}{again}"

    @property
    def place(self) -> str:
        return f"{self.module.replace('.', '/')}.py:{min(self.lines)[1] if self.lines else 0}"

    def compiled(self) -> CodeType:
        """The function's code with the fault; of a constant the code of its value."""
        was = _get(self.parent, self.field, self.index)
        _set(self.parent, self.field, self.index, self.replacement)
        try:
            if isinstance(self.tree, ast.Assign):
                return compile(ast.Expression(self.tree.value), self.module, "eval")
            tree = ast.Module([self.tree], [])
            code = compile(tree, self.module, "exec")
        finally:
            _set(self.parent, self.field, self.index, was)
        return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _get(parent: ast.AST, field: str, index: int | None) -> ast.AST:
    value = getattr(parent, field)
    found: ast.AST = value if index is None else value[index]
    return found


def _set(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def mutants_of(root: Path, modules: list[str], only: list[str]) -> list[Mutant]:
    """All mutants of the modules `only`, which are among `modules`: those that use each other."""
    trees = {
        module: ast.parse((root / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        for module in modules
    }
    used, users = _used_results(trees), _users(trees)
    found: list[Mutant] = []
    for module in only:
        for statement in trees[module].body:
            if isinstance(statement, ast.FunctionDef):
                found += _of_function(module, statement, statement.name, used)
            elif isinstance(statement, ast.ClassDef):
                for member in statement.body:
                    if isinstance(member, ast.FunctionDef):
                        name = f"{statement.name}.{member.name}"
                        found += _of_function(module, member, name, used)
            elif isinstance(statement, ast.Assign):
                found += _of_constant(module, statement, users)
    seen: Counter[str] = Counter()
    for mutant in found:
        key = mutant.key
        mutant.number = seen[key]
        seen[key] += 1
    return found


Name = tuple[str, str]  # of a function: its module if it is private to that, its name


def _name(module: str, name: str) -> Name:
    return (module if name.startswith("_") else "", name)


def _used_results(trees: dict[str, ast.Module]) -> set[Name]:
    """Functions whose result is looked at, or handed on by such a function."""
    functions = [
        (module, node)
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]
    called = {_called(module, node) for module, tree in trees.items() for node in ast.walk(tree)}
    used = {_name(module, node.name) for module, node in functions} - called  # entry points
    while True:
        before = len(used)
        for module, function in functions:
            is_used = _name(module, function.name) in used
            for statement in ast.walk(function):
                for node in _looked_at(statement, is_used):
                    used.add(_called(module, node))
        if len(used) == before:
            return used


def _looked_at(statement: ast.AST, is_used: bool) -> Iterator[ast.AST]:
    """The expressions whose values a statement uses; a result that is handed on, if `is_used`."""
    if not isinstance(statement, ast.stmt):
        return
    for expression in _expressions(statement):
        hands_on = isinstance(statement, ast.Return) and not is_used
        for node in ast.walk(expression):
            if node is not expression or not (hands_on or isinstance(statement, ast.Expr)):
                yield node


def _called(module: str, node: ast.AST) -> Name:
    """The name of the function that an expression calls."""
    if not isinstance(node, ast.Call):
        return ("", "")
    called = node.func
    name = called.id if isinstance(called, ast.Name) else getattr(called, "attr", "")
    return _name(module, name)


def _of_constant(module: str, assign: ast.Assign, users: dict[str, set[Line]]) -> Iterator[Mutant]:
    target = assign.targets[0]
    if not isinstance(target, ast.Name) or not isinstance(assign.value, ast.Constant):
        return
    lines = frozenset(users[target.id] - {(module, assign.lineno)})
    for new in _replacements(assign.value) if lines else ():
        yield _mutant(module, target.id, assign, assign, ("value", None), new, assign, lines)


def _users(trees: dict[str, ast.Module]) -> dict[str, set[Line]]:
    """The lines of the statements that mention a name."""
    found: dict[str, set[Line]] = defaultdict(set)
    for module, tree in trees.items():
        for statement in ast.walk(tree):
            if not isinstance(statement, ast.stmt):
                continue
            lines = {(module, line) for line in _lines(statement)}
            for expression in _expressions(statement):
                for node in ast.walk(expression):
                    if isinstance(node, ast.Name):
                        found[node.id] |= lines
                    elif isinstance(node, ast.Attribute):
                        found[node.attr] |= lines
    return found


def _of_function(
    module: str, function: ast.FunctionDef, name: str, used: set[Name]
) -> Iterator[Mutant]:
    for parent, field, index, statement in _statements(function):
        is_unused = isinstance(statement, ast.Return) and _name(module, function.name) not in used
        if is_unused and not isinstance(getattr(statement, "value", None), ast.Call):
            continue
        lines = frozenset((module, line) for line in _lines(statement))
        for where, new in _faults(statement, parent, field, index):
            yield _mutant(
                module, name, statement, where[0], (where[1], where[2]), new, function, lines
            )


def _mutant(
    module: str,
    name: str,
    statement: ast.stmt,
    parent: ast.AST,
    where: tuple[str, int | None],
    new: ast.AST,
    tree: ast.stmt,
    lines: frozenset[Line],
) -> Mutant:
    for node in ast.walk(new):
        if not hasattr(node, "lineno"):
            ast.copy_location(node, statement)
    old = _get(parent, *where)
    change = "left out" if isinstance(new, ast.Pass) else f"{_text(old)} -> {_text(new)}"
    first = _text(statement)
    return Mutant(module, name, first, change, lines, tree, parent, *where, new)


def _text(node: ast.AST) -> str:
    return ast.unparse(node).splitlines()[0]


Place = tuple[ast.AST, str, int | None]


def _statements(
    function: ast.AST,
) -> Iterator[tuple[ast.AST, str, int, ast.stmt]]:
    """(parent, field, index, statement), without documentation."""
    for field in ("body", "orelse"):
        for index, statement in enumerate(getattr(function, field, [])):
            is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not is_text:
                yield function, field, index, statement
                yield from _statements(statement)


def _lines(statement: ast.stmt) -> range:
    """The lines of a statement without the statements in it."""
    last = statement.end_lineno or statement.lineno
    body = getattr(statement, "body", None)
    if body:
        last = max(statement.lineno, body[0].lineno - 1)
    return range(statement.lineno, last + 1)


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    for _, value in ast.iter_fields(statement):
        for node in value if isinstance(value, list) else [value]:
            if isinstance(node, ast.expr):
                yield node


def _faults(
    statement: ast.stmt, parent: ast.AST, field: str, index: int
) -> Iterator[tuple[Place, ast.AST]]:
    """Where to put what, for one statement."""
    if isinstance(statement, ast.If):
        yield (statement, "test", None), ast.Constant(True)
        yield (statement, "test", None), ast.Constant(False)
    elif isinstance(statement, ast.While):
        yield (statement, "test", None), ast.Constant(False)
    elif isinstance(statement, ast.Return):
        if statement.value is not None and not isinstance(statement.value, ast.Constant):
            yield (statement, "value", None), ast.Constant(0)
    elif not isinstance(statement, (ast.Pass, ast.For)):
        yield (parent, field, index), ast.Pass()
    if isinstance(statement, ast.AugAssign):
        yield from _augmented(statement, parent, field, index)
    if not isinstance(statement, ast.Raise):
        yield from _faults_inside(statement)


def _augmented(
    statement: ast.AugAssign, parent: ast.AST, field: str, index: int
) -> Iterator[tuple[Place, ast.AST]]:
    turned = ARITHMETIC.get(type(statement.op))
    if turned is not None:
        yield (
            (parent, field, index),
            ast.AugAssign(statement.target, turned(), statement.value),
        )
    plain = ast.Assign([statement.target], statement.value)
    yield (parent, field, index), plain


def _faults_inside(node: ast.AST) -> Iterator[tuple[Place, ast.AST]]:
    """Faults of the expressions under a node, not of statements in it."""
    for field, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for index, child in enumerate(children):
            if isinstance(child, ast.expr):
                place = (node, field, index if isinstance(value, list) else None)
                for new in _replacements(child):
                    yield place, new
                yield from _faults_inside(child)


def _replacements(node: ast.AST) -> Iterator[ast.expr]:
    """What to put in an expression's place."""
    if isinstance(node, ast.Constant):
        yield from _other_constants(node)
    elif isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            other = copy.copy(node)
            other.ops = list(node.ops)
            other.ops[index] = COMPARISONS[type(operator)]()
            yield other
    elif isinstance(node, ast.BinOp):
        if type(node.op) in ARITHMETIC:
            yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        if isinstance(node.op, (ast.BitAnd, ast.BitOr)):
            yield node.left
            yield node.right
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        yield node.operand
    elif isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    elif isinstance(node, ast.Call) and _is_range(node):
        end = node.args[min(1, len(node.args) - 1)]
        if not isinstance(end, ast.Constant):
            for step in (ast.Add(), ast.Sub()):
                arguments = list(node.args)
                arguments[min(1, len(node.args) - 1)] = ast.BinOp(end, step, ast.Constant(1))
                yield ast.Call(node.func, arguments, [])


def _other_constants(node: ast.Constant) -> Iterator[ast.Constant]:
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)


def _is_range(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "range"
