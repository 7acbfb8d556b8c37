"""Programs that are forked from one process see what they would see if they had been started by themselves."""

from __future__ import annotations

import subprocess

import pytest
from vnpu_launch import PREPARED, READ_AT_IMPORT, start

# A getenv that writes every name to a file.
SPY = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
char* getenv(const char* name) {
    char* (*real)(const char*) = (char* (*)(const char*))dlsym(RTLD_NEXT, "getenv");
    const char* file = real("SPY_FILE");
    int out = file == NULL ? -1 : open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (out >= 0 && write(out, name, strlen(name)) >= 0 && write(out, "\n", 1) == 1) close(out);
    return real(name);
}
"""
SET_FOR_ALL = {
    "ASCEND_CUSTOM_OPP_PATH",
    "ASCEND_HOME_PATH",
    "ASCEND_OPP_PATH",
}
"""By ``ascend-moe run``, to the same for all programs."""
OURS = ("ASCEND_", "HCCL_", "TASK_QUEUE_ENABLE")
"""What tests set."""


@pytest.mark.usefixtures("run")
def test_what_is_read_before_the_fork_is_known(compiler, tmp_path):
    source, spy, names = (tmp_path / name for name in ("spy.c", "spy.so", "names"))
    source.write_text(SPY)
    subprocess.run([compiler, "-xc", "-shared", "-fPIC", source, "-o", spy, "-ldl"], check=True)
    program = tmp_path / "program.py"
    imports = PREPARED.read_text().split("IMPORTED = ")[1].split("\n")[0]
    program.write_text(f"for name in {imports}: __import__(name)\n")
    log = {"ASCEND_GLOBAL_LOG_LEVEL": "1"}  # with it more is asked
    start(program, environment=log | {"LD_PRELOAD": str(spy), "SPY_FILE": str(names)}, fresh=True)
    read = {name for name in names.read_text().split() if name.startswith(OURS)}
    assert read >= {"ASCEND_MOE_VNPU_CANN", "ASCEND_HOME_PATH"}
    assert read - SET_FOR_ALL == READ_AT_IMPORT


def test_a_program_is_the_main_one_and_its_end_is_told(run, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, torch_npu\n"
        "assert __name__ == '__main__' and sys.modules['__main__'].__dict__ is globals()\n"
        "print(sys.argv[1:], os.environ['MINE'], sys.path[0], flush=True)\n"
        "{'exit': lambda: sys.exit(7), 'say': lambda: sys.exit('why'), 'raise': lambda: 1 / 0, 'die': os.abort,"
        " 'end': int}[sys.argv[1]]()\n"
    )
    for how, code in (("exit", 7), ("say", 1), ("raise", 1), ("die", -6), ("end", 0)):
        done = run(program, how, environment={"MINE": "yes"}, code=code)
        assert f"['{how}'] yes {tmp_path}" in done.stdout
        assert ("ZeroDivisionError" in done.stdout) == (how == "raise")
        assert ("why\n" in done.stdout) == (how == "say")


def test_a_program_that_does_not_end_is_ended_with_its_children(run, tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import os, time\nprint(os.fork(), flush=True)\ntime.sleep(100)\n")
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run(program, timeout=1)
    assert caught.value.output
    program.write_text("print('next')")
    assert run(program).stdout == "next\n"
