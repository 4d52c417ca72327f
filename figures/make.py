"""Makes every table and figure that has runs, and one HTML page with all of it.

    python figures/make.py

First collects the records of whatever ablations have been launched under `--root`, as far as their jobs are done, into
`results/`; then writes, from those records alone, the pages in `docs/results` (Markdown, LaTeX, PNG, PDF), the drawing of
the method, and `report.html`, which holds its pictures in itself. Without runs it does the same from the committed records.
"""

import base64
import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # so that this file runs as a script, whatever the folder

from figures import decomposition, methods, overview, pretraining, records, sizes, variants  # noqa: E402

from weight_templates import cli, launch  # noqa: E402
from weight_templates.errors import RunError, UserError  # noqa: E402
from weight_templates.files import expanded  # noqa: E402


PAGES: dict[str, Any] = {
    ablation: module.main
    for module in (sizes, methods, variants, pretraining, decomposition)
    for ablation in module.TITLES
}
"""What makes the page of a file of records, by the ablation that it is of."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Make every table and figure that has runs, and a report in HTML."""

    root: str = "runs"
    """Folder of all runs; what has been launched there is collected."""
    report: str = "report.html"
    """The report to write."""


def main(config: Config) -> None:
    """Collects records, writes pages, figures, the README's table and the report; raises UserError in the end where records
    are not whole, or `config` names a folder that is not there."""
    root, out = expanded(config.root), expanded(config.report)
    if config.root != Config.root and not root.is_dir():
        raise UserError(f"there is no folder {root}; give --root the folder of your runs.")
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise UserError(f"{out} cannot be written; give --report a file in a folder that is there.")
    for path in sorted(root.glob("sweeps/*.json"), key=lambda path: path.stat().st_mtime):
        try:
            if not collect(json.loads(path.read_text()), root):
                cli.say(f"not collected    {path}: none of its jobs is done in {root}")
        except (UserError, RunError) as error:
            cli.say(f"not collected    {path}: {error}")
        except (ValueError, KeyError, TypeError):
            cli.say(f"not collected    {path}: it is not whole; remove it.")
    broken = []
    for name in names():
        try:
            records.make(PAGES[records.subject(name)], name)
            cli.say(f"page             {records.RESULTS / name}.md")
        except UserError as error:
            cli.say(f"no page          {error}")
            broken.append(name)
    overview.main()
    readme, page = records.RESULTS.parents[1] / "README.md", records.RESULTS / "methods.md"
    if readme.exists() and page.exists():
        readme.write_text(quoted(readme.read_text(), page.read_text()))
    out.write_text(report())
    cli.say(f"report           {out}")
    if broken:
        raise UserError(
            f"no new page of {', '.join(broken)}, whose records are not whole, see above; all else is made."
        )


def names() -> list[str]:
    """The files of records that there are, by their names, in the order of their pages."""
    return [name for ablation in PAGES for name in records.names(ablation)]


def collect(sweep: dict[str, Any], root: Path) -> int:
    """Has an ablation write the records of its jobs that are done under `root`, wherever they were launched.

    **Returns:** how many these are. Raises UserError if the ablation, or what it was launched with, is there no more.
    """
    try:
        module = importlib.import_module(sweep["module"])
    except ModuleNotFoundError as error:
        raise UserError(f"{error}; remove this file if the ablation is gone.") from None
    config = dataclasses.replace(launch.parse(module, sweep["argv"]).config, root=str(root))
    if done := [job for job in module.jobs(config) if job.result is not None]:
        module.collect(config, done)
    return len(done)


BEGIN, END = "<!-- from docs/results/methods.md, by figures/make.py -->", "<!-- end -->"


def quoted(readme: str, page: str) -> str:
    """A text with the first table of a page between its two markers."""
    table = re.search(r"(?m)^\|.*(?:\n\|.*)*", page)
    before, _, rest = readme.partition(BEGIN)
    _, found, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table[0]}\n{END}{after}" if table and found else readme


FINDINGS = ROOT / "docs" / "findings.md"
"""What the results say: the first page of the report."""


def report() -> str:
    """All pages as one in HTML, pictures included."""
    from markdown_it import MarkdownIt

    pages = [path for name in names() if (path := records.RESULTS / f"{name}.md").exists()]
    pages += sorted(path for path in records.RESULTS.glob("*.md") if path not in pages)
    pages = [path for path in [FINDINGS] if path.exists()] + pages
    bodies = [MarkdownIt().enable("table").render(path.read_text()) for path in pages]
    titles = [found[1] if (found := re.search(r"<h1>(.*?)</h1>", one)) else "" for one in bodies]
    body = "".join(one.replace("<h1>", f'<h1 id="{number}">', 1) for number, one in enumerate(bodies))
    for number, path in enumerate(pages):  # links from page to page
        body = re.sub(rf'href="(results/)?{re.escape(path.name)}"', f'href="#{number}"', body)
    body = re.sub(
        r'<img src="([^"]+)"', lambda found: f'<img src="{embedded(records.RESULTS / unquote(found[1]))}"', body
    )
    method = embedded(ROOT / "docs" / "overview.png")
    links = "".join(f'<li><a href="#{number}">{title}</a></li>' for number, title in enumerate(titles))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>weight-templates: results</title><style>{STYLE}'
        f'</style><body><h1>weight-templates: results</h1><img src="{method}" alt="the method"><ul>{links}</ul>{body}</body></html>\n'
    )


STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; font-size: 0.8rem; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: 0.25rem 0.4rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; }
code { background: #f4f4f4; padding: 0.1rem 0.25rem; overflow-wrap: anywhere; }
h1 { margin-top: 3rem; border-bottom: 2px solid #ccc; }
"""


def embedded(picture: Path) -> str:
    """A picture as an address that holds it; of one that is not there, its name, so that the page shows what it is of."""
    if not picture.exists():
        return picture.name
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


if __name__ == "__main__":
    cli.run(lambda: main(cli.parse({"default": Config()})))
