"""The part of a program that one of its functions needs, so that a model's own tests and examples do not count."""

import ast
import symtable
from collections.abc import Iterator, Mapping, Sequence

FUNCTION_NODES = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITION_NODES = (*FUNCTION_NODES, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Raise)
SETTINGS = ("setrecursionlimit", "set_int_max_str_digits", "setcontext", "seed", "stack_size")
"""Functions of the standard library that change how other functions run."""

DYNAMIC = {"eval", "exec", "globals", "vars"}
"""Built-in functions with which a function may use any name."""


def needed_part(source: str, name: str, *, test: str = "", continued: bool = False) -> str:
    """The function `name` and what it needs: what its code mentions, directly or through other definitions.

    All else is left out, whatever it would do (fail, end the program, wait for input): asserts, prints, calls of `main`
    or `unittest.main`, unused imports. A statement that may change a value that the function uses, such as a loop that
    fills a table, is run, but does not count if it fails. A `raise` outside of all functions stays: with it, the
    program itself says that it has failed.

    Args:
        source: a program; a text that cannot be parsed is returned unchanged.
        name: of several functions of this name, the last one that is more than a stub, or the first if `continued`.
        test: code that uses the function; what it mentions is kept too.
        continued: whether a model has continued the first function, so that later definitions do not replace it.
    """
    try:
        names = {name}.union(*map(_names_read, ast.parse(test).body))
        statements = _without_later_definitions(ast.parse(source).body, name, continued)
        body = [_uncounted(statement) for statement in _needed(statements, names)]
        return ast.unparse(ast.fix_missing_locations(ast.Module(body, [])))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return source


def implements(source: str, name: str) -> bool:
    """Whether a source is a program that defines the function `name`, by more than a stub, or assigns it."""
    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    functions = any(
        isinstance(line, FUNCTION_NODES) and line.name == name and not _is_stub(line) for line in statements
    )
    return functions or any(
        isinstance(line, ast.Assign | ast.AnnAssign) and name in set[str]().union(*map(_bound_names, ast.walk(line)))
        for line in statements
    )


def _is_stub(statement: ast.stmt) -> bool:
    """Whether a statement is a function without code: only imports, `pass`, `...`, texts or NotImplementedError."""
    return isinstance(statement, FUNCTION_NODES) and all(
        isinstance(line, ast.Pass | ast.Import | ast.ImportFrom)
        or (isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant))
        or (isinstance(line, ast.Raise) and "NotImplementedError" in ast.unparse(line))
        for line in statement.body
    )


def _without_later_definitions(statements: list[ast.stmt], name: str, continued: bool) -> list[ast.stmt]:
    definitions = [i for i, line in enumerate(statements) if isinstance(line, FUNCTION_NODES) and line.name == name]
    written = [index for index in definitions if not _is_stub(statements[index])]
    if not written:
        return statements
    chosen = written[0] if continued else written[-1]
    return [line for index, line in enumerate(statements) if index <= chosen or index not in definitions]


def _needed(statements: Sequence[ast.stmt], names: set[str]) -> list[ast.stmt]:
    """The statements that bind or change one of the names, or a name that these statements read, and so on."""
    functions = {line.name: line for line in statements if isinstance(line, FUNCTION_NODES)}
    changed = [_changed_names(line, functions) for line in statements]
    kept = {index for index, line in enumerate(statements) if _always_runs(line)}
    needed = names.union(*(_names_read(statements[index]) for index in kept))
    while True:
        if needed & DYNAMIC:
            needed.update(*changed)
        added = {index for index, bound in enumerate(changed) if bound & needed} - kept
        if not added:
            return [statements[index] for index in sorted(kept)]
        kept |= added
        needed.update(*(_names_read(statements[index]) for index in added))


def _always_runs(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__" or _imports_all(statement)
    calls = (node.func for node in _outside_functions(statement) if isinstance(node, ast.Call))
    return isinstance(statement, ast.Raise) or any(
        (func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "")) in SETTINGS for func in calls
    )


def _imports_all(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*"


def _uncounted(statement: ast.stmt) -> ast.stmt:
    """The statement in a `try` that ignores any error, unless the function cannot be right without it."""
    if isinstance(statement, DEFINITION_NODES) and not _imports_all(statement):
        return statement
    handler = ast.ExceptHandler(ast.Name("BaseException", ast.Load()), None, [ast.Pass()])
    return ast.Try([statement], [handler], [], [])


def _names_read(statement: ast.stmt) -> set[str]:
    """The global and built-in names that a statement reads, also in the functions that it defines."""
    tables = [symtable.symtable(ast.unparse(statement), "program", "exec")]
    names = set[str]()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        outermost = table.get_type() == "module"
        names |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (outermost or s.is_global())}
    return names


def _changed_names(statement: ast.stmt, functions: Mapping[str, ast.stmt]) -> set[str]:
    """The names that a statement binds, or whose values it may change, also through `functions` that it calls."""
    if isinstance(statement, (*FUNCTION_NODES, ast.ClassDef)):
        return {statement.name}
    names = set[str]().union(*map(_bound_names, _outside_functions(statement)))
    seen, waiting = set[str](), [statement]
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Global):
                names.update(node.names)
            elif isinstance(node, ast.Attribute | ast.Subscript) and _is_bound(node):
                names.add(_root(node))
            elif isinstance(node, ast.Call):
                callee = _root(node.func)
                if not isinstance(node.func, ast.Name):
                    names.add(callee)
                names |= {arg.id for arg in node.args if isinstance(arg, ast.Name)} - functions.keys()
                if callee in functions and callee not in seen:
                    seen.add(callee)
                    waiting.append(functions[callee])
    return names


def _bound_names(node: ast.AST) -> set[str]:
    if isinstance(node, (*FUNCTION_NODES, ast.ClassDef)):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return {node.id} if isinstance(node, ast.Name) and _is_bound(node) else set()


def _is_bound(node: ast.Name | ast.Attribute | ast.Subscript) -> bool:
    return not isinstance(node.ctx, ast.Load)


def _outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a statement that run with it: not those in the functions that it defines."""
    yield node
    if not isinstance(node, (*FUNCTION_NODES, ast.Lambda)):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def _root(node: ast.expr) -> str:
    """The name that an expression begins with, such as `a` in `a.b[0].c()`; "" if it begins with something else."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""
