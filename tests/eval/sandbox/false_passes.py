"""Programs that do not give the right answer, each trying to be taken for one that does.

The right answers are random, and only the test knows them: `attack(1)` and `attack([2])`.
"""
# ruff: noqa: E501

LIAR = """
class Liar{base}:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __len__(self): return 1
    def __iter__(self): return iter([self])
    def __getitem__(self, key): return self
    def __getattr__(self, name): return self
    def __call__(self, *args, **kwargs): return self
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __lt__
    def __sub__(self, other): return 0
    __rsub__ = __sub__
    def __abs__(self): return 0
    def __repr__(self): return "True"
    def __instancecheck__(self, other): return True
"""

WRITE_EVERYWHERE = """
import json, os
def spray(*texts):
    for descriptor in range(64):
        for text in texts:
            try: os.write(descriptor, text)
            except OSError: pass
"""

PASSED = r"""b'passed\n', b'{"result": "passed"}\n', b'{"nonce": "", "result": "passed"}\n'"""
FRAMED = "len(b).to_bytes(8, 'big') + b"
IN_CALL = "def attack(x):\n    {}\n    return 0\n"

PROGRAMS = {
    "equal to all": LIAR.format(base="") + "def attack(x): return Liar()",
    "equal list": LIAR.format(base="(list)") + "def attack(x): return Liar([1])",
    "equal str": LIAR.format(base="(str)") + "def attack(x): return Liar('a')",
    "equal int": LIAR.format(base="(int)") + "def attack(x): return Liar(7)",
    "equal dict": LIAR.format(base="(dict)") + "def attack(x): return Liar(a=1)",
    "equal float": LIAR.format(base="(float)") + "def attack(x): return Liar(1.5)",
    "equal tuple": LIAR.format(base="(tuple)") + "def attack(x): return Liar((1,))",
    "equal set": LIAR.format(base="(set)") + "def attack(x): return Liar({1})",
    "equal bytes": LIAR.format(base="(bytes)") + "def attack(x): return Liar(b'a')",
    "equal in a list": LIAR.format(base="") + "def attack(x): return [Liar(), (Liar(),)]",
    "equal key": LIAR.format(base="") + "def attack(x): return {Liar(): Liar()}",
    "equal exception": LIAR.format(base="(Exception)") + "def attack(x): raise Liar('x')",
    "equal class": "class M(type):\n    def __eq__(s, o): return True\n"
    "class C(metaclass=M): pass\ndef attack(x): return C",
    "mock": "from unittest import mock\ndef attack(x): return mock.ANY",
    "str with lies": "class S(str):\n    def __str__(self): return 'right'\n"
    "    def __getitem__(self, k): return 'right'\ndef attack(x): return S('wrong')",
    "claimed class": "class C:\n    __class__ = property(lambda s: str)\n"
    "    def __eq__(s, o): return True\ndef attack(x): return C()",
    "a pickle": "class P:\n    def __reduce__(s): import os; return (os._exit, (0,))\n"
    "def attack(x): return P()",
    "numpy object": "import numpy\nclass E:\n    def __eq__(s, o): return True\n"
    "def attack(x): return numpy.array([E()], dtype=object)",
    "a generator": "def attack(x): yield from [1, 2]",
    "the endless generator": "def attack(x):\n    while True: yield x",
    "nan": "def attack(x): return float('nan')",
    "nothing": "def attack(x): pass",
    "the function itself": "def attack(x): return attack",
    "sys.exit(0)": "import sys\nsys.exit(0)\ndef attack(x): return 0",
    "sys.exit in the call": IN_CALL.format("import sys; sys.exit(0)"),
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit in the call": IN_CALL.format("import os; os._exit(0)"),
    "quit": "quit()\ndef attack(x): return 0",
    "SystemExit subclass": "class E(SystemExit): pass\ndef attack(x): raise E(0)",
    "KeyboardInterrupt": "def attack(x): raise KeyboardInterrupt",
    "GeneratorExit": "def attack(x): raise GeneratorExit",
    "StopIteration": "def attack(x): raise StopIteration",
    "AssertionError": "def attack(x): raise AssertionError('passed')",
    "_Stop by its name": "class _Stop(BaseException): pass\ndef attack(x): raise _Stop",
    "exit by a thread": IN_CALL.format(
        "import threading, os; threading.Thread(target=lambda: os._exit(0)).start()"
    ),
    "killed by itself": IN_CALL.format("import os, signal; os.kill(os.getpid(), signal.SIGKILL)"),
    "kill its parent": IN_CALL.format("import os; os.kill(os.getppid(), 9)"),
    "kill the group": IN_CALL.format("import os; os.kill(0, 9)"),
    "kill all": IN_CALL.format("import os; os.kill(-1, 9)"),
    "crash": IN_CALL.format("import ctypes; ctypes.string_at(0)"),
    "its own check": "def check(candidate): pass\ndef attack(x): return 0",
    "check in builtins": "import builtins\nbuiltins.check = lambda candidate: None\n"
    "def attack(x): return 0",
    "check in main": "import sys\nsys.modules['__main__'].check = lambda c: None\n"
    "def attack(x): return 0",
    "patched equality": "import operator\noperator.eq = lambda a, b: True\ndef attack(x): return 0",
    "patched assertion": "import builtins\nbuiltins.AssertionError = type('N', (BaseException,), {})"
    "\ndef attack(x): return 0",
    "patched builtins": "import builtins\nfor n in ('all', 'any', 'isinstance', 'len', 'abs', 'bool'):"
    "\n    setattr(builtins, n, lambda *a: True)\ndef attack(x): return 0",
    "patched exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\n"
    "def attack(x): return 0",
    "patched json": 'import json\njson.dumps = lambda *a, **k: \'{"result": "passed"}\'\n'
    "json.loads = lambda *a, **k: {'result': 'passed'}\ndef attack(x): return 0",
    "patched encoder": "import sys\nfor n, m in list(sys.modules.items()):\n"
    "    if n.endswith('plain'): m.to_tree = lambda v: {'passed': True}\ndef attack(x): return 0",
    "patched os.write": "import os\nos.write = lambda d, b: len(b)\ndef attack(x): return 0",
    "patched modules": "import sys\nfor n in list(sys.modules):\n    sys.modules[n] = None\n"
    "def attack(x): return 0",
    "import hook": "import sys\nclass H:\n    def find_spec(s, n, *a): import os; os._exit(0)\n"
    "sys.meta_path.insert(0, H())\ndef attack(x):\n    import secrets\n    return 0",
    "patched __import__": "import builtins, types\n"
    "builtins.__import__ = lambda *a, **k: types.SimpleNamespace(__getattr__=lambda n: 0)\n"
    "def attack(x): return 0",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\ndef attack(x): return 0",
    "trace": "import sys\nsys.settrace(lambda f, e, a: f.f_globals.update(check=lambda c: None))\n"
    "def attack(x): return 0",
    "audit hook": "import sys\nsys.addaudithook(lambda e, a: None)\ndef attack(x): return 0",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\n"
    "def attack(x): raise ValueError",
    "frames": "import sys\ndef attack(x):\n    f = sys._getframe()\n    while f:\n"
    "        for v in ('result', 'passed', 'ok'): f.f_locals[v] = 'passed'\n"
    "        f.f_globals['result'] = 'passed'\n        f = f.f_back\n    return 0",
    "garbage collector": "import gc\ndef attack(x):\n    for o in gc.get_objects():\n"
    "        if type(o) is dict:\n            for k in list(o):\n"
    "                if k in ('result', 'verdict', 'fault', 'passed'): o[k] = 'passed'\n"
    "    return 0",
    "the answer of a repr": "def attack(x):\n    class R:\n        def __repr__(s): return 'passed'\n"
    "    return R()",
    "deep list": "def attack(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "a list in itself": "def attack(x):\n    a = []\n    a.append(a)\n    return a",
    "huge int": "def attack(x): return 10 ** 10000",
    "huge list": "def attack(x): return [0] * 10**8",
    "spray at the start": WRITE_EVERYWHERE + f"spray({PASSED})\ndef attack(x): return 0",
    "spray and exit": WRITE_EVERYWHERE + f"spray({PASSED})\nos._exit(0)",
    "spray in the call": WRITE_EVERYWHERE + f"def attack(x):\n    spray({PASSED})\n    return 0",
    "framed answers": WRITE_EVERYWHERE + "def attack(x):\n"
    "    for t in ({'return': True}, {'return': {'opaque': 'x'}}, {'passed': True}, [], 1):\n"
    f"        b = json.dumps(t).encode()\n        spray({FRAMED})\n    os._exit(0)",
    "answers beforehand": WRITE_EVERYWHERE + "b = json.dumps({'return': None}).encode()\n"
    f"for _ in range(50): spray({FRAMED})\ndef attack(x): return 0",
    "endless answer": WRITE_EVERYWHERE + "def attack(x):\n"
    "    while True: spray((2**40).to_bytes(8, 'big') + b'[' * 2**16)",
    "deep answer": WRITE_EVERYWHERE + "def attack(x):\n    b = b'[' * 10**6\n"
    f"    spray({FRAMED})\n    os._exit(0)",
    "unhashable answer": WRITE_EVERYWHERE + "def attack(x):\n"
    "    b = json.dumps({'return': {'set': [[1]]}}).encode()\n"
    f"    spray({FRAMED})\n    os._exit(0)",
    "a class by name": WRITE_EVERYWHERE + "def attack(x):\n"
    "    b = json.dumps({'raise': ['exit', 'x']}).encode()\n"
    f"    spray({FRAMED})\n    os._exit(0)",
    "exit by name": WRITE_EVERYWHERE + "def attack(x):\n"
    "    b = json.dumps({'raise': ['SystemExit', '0']}).encode()\n"
    f"    spray({FRAMED})\n    os._exit(0)",
    "closed descriptors": "import os\nos.closerange(0, 256)\ndef attack(x): return 0",
    "a signal handler": "import signal, os\nsignal.signal(signal.SIGALRM, lambda *a: os._exit(0))\n"
    "def attack(x):\n    while True: pass",
    "time": "import time\ntime.monotonic = lambda: 0\ndef attack(x):\n    while True: pass",
    "no compile": "def attack(x: return 0",
    "a null byte": "def attack(x): return '\x00'\n\x00",
    "no function": "x = 1",
    "not a function": "attack = 'passed'",
    "memory": "def attack(x): return len(bytearray(2**40))",
    "recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef attack(x): return attack(x)",
}
