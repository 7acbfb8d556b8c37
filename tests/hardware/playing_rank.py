"""Plays a rank for the supervisor's tests: ``python -m playing_rank JSON``, without torch.

PLAN says, per case, what which rank does: {"1": {"rank": 0, "do": "crash" | "hang" | "raise"}}.
"""

import json
import os
import sys
import time

from hardware_kit.job import Job

CASES = 4


def main() -> None:
    job, plan = Job(**json.loads(sys.argv[1])), json.loads(os.environ["PLAN"])
    for number in range(job.first, CASES):
        mark = job.path(f"{job.attempt}.{job.rank}.case")
        mark.write_text(str(number))
        step = plan.get(str(number), {})
        if step.get("rank") == job.rank:
            if step["do"] == "crash":
                os.abort()
            if step["do"] == "raise":
                job.path(f"{job.attempt}.{job.rank}.error").write_text("561002, tiling refused")
                sys.exit(3)
            time.sleep(1000)
        elif step:
            time.sleep(1000)  # waits for the rank that does not come
        job.path(f"{number}.{job.rank}.pt").touch()
    job.path(f"{job.attempt}.{job.rank}.case").write_text(str(CASES))


if __name__ == "__main__":
    main()
