"""`dataprep report`: a cache in, its page on disk and the short form as text out."""

from pathlib import Path

from dataprep.core.shards import shards_folder
from dataprep.report.collect import collect_report
from dataprep.report.page import report_page
from dataprep.report.terminal import report_text
from schemas.errors import InputError
from schemas.files import write_text_whole


def write_report(cache: Path, out: Path | None, num_samples: int) -> str:
    """Write the page, by default CACHE/report.html. Raises CacheError, and InputError where `out` is a folder."""
    if cache.resolve().name == "conversations" and not (cache / "conversations").exists():
        cache = cache.resolve().parent
    page = out or shards_folder(cache).parent / "report.html"
    if page.is_dir():
        raise InputError(f"--out {page}: is a folder; name a file in it, such as {page / 'report.html'}")
    figures, samples = collect_report(cache, num_samples)
    write_text_whole(page, report_page(figures, samples))
    return report_text(figures, page)
