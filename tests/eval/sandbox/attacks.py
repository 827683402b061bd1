"""Programs that look for what is not theirs, or break what they can.

`@file@`, `@port@`, `@key@` ... are where a secret lies in the caller's world; `attack(x)` says what it found.
"""
# ruff: noqa: E501


def read(path):
    return f"def attack(x):\n    return open({path!r}, errors='replace').read()\n"


def attempt(statement):
    return f"""
import os, socket, subprocess, sys
def attack(x):
    try:
        {statement}
    except OSError as error:
        return 'no: ' + str(error.strerror)
    return 'REACHED'
"""


def call(condition):
    return f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def attack(x):
    return 'REACHED' if {condition} else 'no: ' + os.strerror(ctypes.get_errno())
"""


def all_of(pattern):
    return f"""
import glob
def attack(x):
    found = ''
    for path in glob.glob({pattern!r}):
        try: found += open(path, 'rb').read(10**6).decode(errors='replace')
        except OSError: pass
    return 'LEAK' if any(s in found for s in @secrets@) else found[-500:]
"""


WALK = """
import os
def attack(x):
    found = []
    for folder, folders, files in os.walk('/'):
        for name in files:
            path = os.path.join(folder, name)
            try:
                content = open(path, 'rb').read() if os.path.getsize(path) < 10**4 else b''
            except OSError: content = b''
            if any(s.encode() in content for s in @secrets@): found.append('LEAK ' + path)
        if folder.count('/') > 3 or folder.startswith(('/dev', '/proc', '/python', '/usr/lib/')):
            del folders[:]
    return str(found)
"""


LOOKING = {
    "environment": "import os\ndef attack(x): return str(dict(os.environ))",
    "environment of 1": read("/proc/1/environ"),
    "environment of all": all_of("/proc/*/environ"),
    "command lines": all_of("/proc/*/cmdline"),
    "its parent's files": all_of("/proc/1/fd/*"),
    "every descriptor": all_of("/proc/*/fd/*"),
    "root of 1": read("/proc/1/root@file@"),
    "root of itself": read("/proc/self/root@file@"),
    "cwd of 1": read("/proc/1/cwd@file@"),
    "a file": read("@file@"),
    "a file in /tmp": read("@tmp_file@"),
    "up and up": read("../../../../../../../../..@file@"),
    "/etc/passwd": "import os\ndef attack(x):\n"
    "    return 'REACHED' if os.path.exists('/etc/passwd') else ''",
    "/etc/shadow": attempt("open('/etc/shadow').read()"),
    "/root": attempt("os.listdir('/root')"),
    "/home": attempt("os.listdir('/home')"),
    "/sys": attempt("os.listdir('/sys')"),
    "/run": attempt("os.listdir('/run')"),
    "a link": "import os\ndef attack(x):\n    os.symlink('@file@', 'l')\n    return open('l').read()",
    "a hard link": "import os\ndef attack(x):\n    os.link('@file@', 'l')\n    return open('l').read()",
    "a link over time": "import os\ndef attack(x):\n    os.mkdir('d')\n    os.symlink('/', 'd/l')\n"
    "    return open('d/l@file@').read()",
    "all of the disk": WALK,
    "all of /proc/self": all_of("/proc/self/*"),
    "the memory of 1": "def attack(x):\n    found = b''\n    for line in open('/proc/1/maps'):\n"
    "        a, b = (int(n, 16) for n in line.split()[0].split('-'))\n"
    "        with open('/proc/1/mem', 'rb') as m:\n            try:\n                m.seek(a)\n"
    "                found += m.read(min(b - a, 10**5))\n            except (OSError, ValueError): pass\n"
    "    return 'LEAK' if any(s.encode() in found for s in @secrets@) else 'no'",
    "objects": "import gc\ndef attack(x):\n    seen = [o for o in gc.get_objects() if type(o) is dict]\n"
    "    keys = {k for o in seen for k in o if type(k) is str}\n"
    "    return 'LEAK' * bool(keys & {'nonce', 'test', 'helpers'})",
    "frames": "import sys\ndef attack(x):\n    f, found = sys._getframe(), ''\n    while f:\n"
    "        found += str(f.f_locals.get('settings', ''))[:10**6] + str(f.f_locals.get('job', ''))\n"
    "        f = f.f_back\n    return 'LEAK' if 'def che' + 'ck' in found else 'no'",
    "kernel log": "import os\ndef attack(x): return open('/dev/kmsg').read(100)",
    "disks": attempt("open('/dev/vda', 'rb').read(10)"),
    "kcore": attempt("open('/proc/kcore', 'rb').read(10)"),
    "a keyring": call("libc.syscall(250, 10, -3, b'user', b'@key@', 0) >= 0"),
    "the user's keyring": call("libc.syscall(250, 10, -4, b'user', b'@key@', 0) >= 0"),
    "a requested key": call("libc.syscall(249, b'user', b'@key@', 0, -3) >= 0"),
    "/proc/keys": "def attack(x): return open('/proc/keys').read()",
    "shared memory": call("libc.shmget(@shm_key@, 0, 0) >= 0"),
    "a TCP server": attempt("socket.create_connection(('127.0.0.1', @port@), 1)"),
    "a TCP server by v6": attempt("socket.create_connection(('::1', @port@), 1)"),
    "the network": attempt("socket.create_connection(('1.1.1.1', 53), 1)"),
    "names": attempt("socket.getaddrinfo('example.com', 80)"),
    "UDP": attempt("socket.socket(type=2).sendto(b'x', ('8.8.8.8', 53))"),
    "an abstract socket": attempt("socket.socket(1).connect('\\0@abstract@')"),
    "a socket's file": attempt("socket.socket(1).connect('@socket@')"),
    "raw socket": attempt("socket.socket(2, 3, 1)"),
    "interfaces": "import socket\ndef attack(x): return 'REACHED' * ("
    "{n for _, n in socket.if_nameindex()} > {'lo'})",
    "ptrace 1": call("libc.ptrace(16, 1, None, None) == 0 and open('/proc/1/root@file@')"),
    "processes": "import os\ndef attack(x):\n"
    "    return 'REACHED' * (sum(n.isdigit() for n in os.listdir('/proc')) > 3)",
}
"""What tries to find: nothing of the caller's may be in what they say."""

BREAKING = {
    "a user namespace": call("libc.unshare(0x10000000) == 0"),
    "a mount namespace": call("libc.unshare(0x00020000) == 0"),
    "a process namespace": call("libc.unshare(0x20000000) == 0"),
    "clone into a user namespace": call("libc.syscall(56, 0x10000011, 0, 0, 0, 0) not in (-1, 0)"),
    "another's namespace": call("libc.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0) == 0"),
    "mount": call("libc.mount(b'proc', b'/tmp', b'proc', 0, None) == 0"),
    "unmount /tmp": call("libc.umount2(b'/tmp', 2) == 0"),
    "unmount /proc": call("libc.umount2(b'/proc', 2) == 0"),
    "remount": call("libc.mount(b'', b'/', b'', 4128, None) == 0"),
    "pivot_root": call("libc.syscall(155, b'/', b'/tmp') == 0"),
    "chroot": attempt("os.chroot('/tmp')"),
    "become root": attempt("os.setuid(0)"),
    "become another": attempt("os.setuid(1000)"),
    "groups": attempt("os.setgroups([0])"),
    "capabilities": call(
        "libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[2**32-1] * 6)) == 0"
    ),
    "a device": attempt("os.mknod('/tmp/d', 0o60666, os.makedev(254, 0))"),
    "core pattern": attempt("open('/proc/sys/kernel/core_pattern', 'w').write('|/x')"),
    "sysrq": attempt("open('/proc/sysrq-trigger', 'w').write('h')"),
    "max namespaces": attempt("open('/proc/sys/user/max_user_namespaces', 'w').write('9')"),
    "cgroups": attempt("os.mkdir('/sys/fs/cgroup/x')"),
    "host name": attempt("socket.sethostname('x')"),
    "the clock": attempt("__import__('time').clock_settime(0, 0.0)"),
    "higher limits": "import resource\ndef attack(x):\n    try:\n"
    "        resource.setrlimit(resource.RLIMIT_AS, (2**50, 2**50))\n"
    "    except (ValueError, OSError): return 'no'\n    return 'REACHED'",
    "priority": attempt("os.nice(-5)"),
    "real time": attempt("os.sched_setscheduler(0, 1, os.sched_param(9))"),
    "write /": attempt("open('/x', 'w')"),
    "write /dev/shm": attempt("open('/dev/shm/x', 'w')"),
    "write /dev": attempt("open('/dev/x', 'w')"),
    "write the interpreter": attempt("open(os.__file__, 'a')"),
    "write our code": attempt("open('/code/inside/plain.py', 'a')"),
    "chmod the interpreter": attempt("os.chmod(os.__file__, 0o777)"),
    "the terminal": attempt("open('/dev/tty', 'w').write('x')"),
    "put into the terminal": attempt("__import__('fcntl').ioctl(0, 0x5412, b'x')"),
    "a set-user-id program": "import os, shutil\ndef attack(x):\n"
    "    shutil.copy('/python/bin/python', '/tmp/p')\n    os.chmod('/tmp/p', 0o6755)\n"
    "    return str(os.spawnl(os.P_WAIT, '/tmp/p', 'p', '-S', '-c', "
    "'import os; os.seteuid(0)'))[:1] + ' is its code'",
    "bpf": call("libc.syscall(321, 5, None, 0) >= 0"),
    "kexec": call("libc.syscall(246, 0, 0, None, 0) == 0"),
    "a module": call("libc.syscall(175, None, 0, b'') == 0"),
    "reboot": call("libc.reboot(0) == 0"),
    "kill the caller": attempt("os.kill(@pid@, 9)"),
    "signal the caller's group": attempt("os.killpg(@pid@, 9)"),
}
"""What tries to get rights or to change the caller's world: none may say that it did."""

BOMBS = {
    "fork": "import os\ndef attack(x):\n    while True:\n        try: os.fork()\n"
    "        except OSError: pass",
    "fork and exit": "import os\ndef attack(x):\n    while True:\n        try:\n"
    "            if os.fork(): os._exit(0)\n        except OSError: pass",
    "threads": "import threading, time\ndef attack(x):\n    while True:\n        try:\n"
    "            threading.Thread(target=time.sleep, args=(99,)).start()\n"
    "        except RuntimeError: pass",
    "memory": "def attack(x):\n    a = []\n    while True: a.append(bytearray(10**8))",
    "memory of children": "import os\ndef attack(x):\n    for _ in range(3): os.fork()\n"
    "    a = b'x' * 10**9\n    while True: pass",
    "output": "import os\ndef attack(x):\n    while True:\n        for d in (1, 2): os.write(d, b'x' * 10**6)",
    "print": "def attack(x):\n    while True: print('x' * 10**6)",
    "a long answer": "def attack(x): return 'x' * 10**9",
    "a long error": "def attack(x): raise ValueError('x' * 10**8)",
    "a file": "def attack(x):\n    with open('f', 'wb') as f:\n        while True: f.write(b'x' * 10**6)",
    "files": "def attack(x):\n    n = 0\n    while True:\n        n += 1\n"
    "        with open(f'f{n}', 'wb') as f: f.write(b'x' * 10**6)",
    "inodes": "import os\ndef attack(x):\n    n = 0\n    try:\n        while True:\n            n += 1\n"
    "            os.close(os.open(str(n), os.O_CREAT))\n"
    "    except OSError: return 'REACHED' * (n > 10**4)",
    "deep folders": "import os\ndef attack(x):\n    while True:\n        os.mkdir('d')\n        os.chdir('d')",
    "descriptors": "import os\ndef attack(x):\n    while True: os.open('/dev/null', 0)",
    "pipes": "import os\ndef attack(x):\n    while True:\n        r, w = os.pipe()\n"
    "        os.set_blocking(w, False)\n        os.write(w, b'x' * 65536)",
    "a loop": "def attack(x):\n    while True: pass",
    "a loop at the start": "while True: pass",
    "a loop that catches": "def attack(x):\n    while True:\n        try:\n            while True: pass\n"
    "        except BaseException: pass",
    "a long sum": "def attack(x): return 9 ** 9 ** 9",
    "a regular expression": "import re\ndef attack(x): return re.match('(a+)+$', 'a' * 64 + 'b')",
    "sleep": "import time\ndef attack(x): time.sleep(10**6)",
    "blocked signals": "import signal, time\nsignal.pthread_sigmask(0, range(1, 65))\n"
    "def attack(x): time.sleep(10**6)",
    "stopped": "import os, signal\ndef attack(x): os.kill(os.getpid(), signal.SIGSTOP)",
    "reading": "import sys\ndef attack(x): return sys.stdin.read()",
    "input": "def attack(x): return input('number: ')",
    "daemon": "import os, time\ndef attack(x):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        if os.fork() == 0:\n            while True: time.sleep(1)\n        os._exit(0)\n    return 0",
    "daemon with signals ignored": "import os, signal, time\ndef attack(x):\n    if os.fork() == 0:\n"
    "        os.setsid()\n        for s in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(s, signal.SIG_IGN)\n"
    "        while True: pass\n    return 0",
    "a child that keeps the socket": "import os, time\ndef attack(x):\n    if os.fork() == 0:\n"
    "        time.sleep(10**6)\n    os._exit(0)",
    "escape codes": "def attack(x): return '\\x1b]0;owned\\x07\\x1b[2J\\x1b[31m\\x9b'",
    "escape codes printed": "import os\ndef attack(x):\n    os.write(1, b'\\x1b[2J\\xff\\xfe\\x00')\n    return 0",
    "no UTF-8": "def attack(x): return '\\ud800\\udfff\\udc80' + b'\\xff'.decode('latin1')",
    "no UTF-8 in an error": "def attack(x): raise ValueError('\\udc80\\x00')",
    "no UTF-8 in a file's name": "def attack(x):\n    open(b'\\xff\\n\\x1b[2J', 'w')\n    return 0",
    "a core": "import os\ndef attack(x): os.abort()",
    "no rights on its folder": "import os\ndef attack(x):\n    os.mkdir('d')\n    open('d/f', 'w')\n"
    "    os.chmod('d', 0)\n    os.chmod('.', 0)\n    return 0",
}
"""What uses up or blocks: each must end, and everything else go on."""
