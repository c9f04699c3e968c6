"""What a run costs whatever the size of its input: what is imported, read and loaded."""

import subprocess
import sys


def test_lists_become_arrays_without_pandas_and_tables_become_data_frames_still():
    code = (
        "import sys, pyarrow as pa\n"
        "from dataprep.core.arrays import spare_pandas\n"
        "spare_pandas()\n"
        "assert pa.array(['a', None], pa.string()).null_count == 1 and 'pandas' not in sys.modules\n"
        "assert pa.table({'a': [7]}).to_pandas()['a'].tolist() == [7]\n"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
