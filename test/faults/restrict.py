"""Runs a command with less than it might have: `restrict.py USER CALL,CALL… COMMAND…`.

USER is a number of a user and group to become (needs root), or `-` to stay who one is. The system calls (process_vm_readv,
process_vm_writev, io_uring_setup) fail with EPERM by a seccomp filter, which the command and its threads inherit.
"""

import ctypes
import os
import platform
import struct
import sys

# Numbers of the calls, and what seccomp calls the architecture (linux/audit.h).
MACHINES = {
    "x86_64": (0xC000003E, {"process_vm_readv": 310, "process_vm_writev": 311, "io_uring_setup": 425}),
    "aarch64": (0xC00000B7, {"process_vm_readv": 270, "process_vm_writev": 271, "io_uring_setup": 425}),
}
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
LOAD_WORD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM = 1


def forbid(calls):
    architecture, numbers = MACHINES[platform.machine()]
    # struct seccomp_data: the number at 0, the architecture at 4.
    program = [(LOAD_WORD, 0, 0, 4), (JUMP_EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL), (LOAD_WORD, 0, 0, 0)]
    for call in calls:
        program += [(JUMP_EQUAL, 0, 1, numbers[call]), (RETURN, 0, 0, FAIL | EPERM)]
    program.append((RETURN, 0, 0, ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header)):
        if libc.prctl(*arguments) != 0:
            sys.exit(f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


user, calls, *command = sys.argv[1:]
if user != "-":
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
    os.environ.pop("XDG_RUNTIME_DIR", None)
    os.environ["HOME"] = "/"
    os.chdir("/")
forbid(calls.split(","))
os.execvp(command[0], command)
