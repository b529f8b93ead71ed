"""How the site is built: Sphinx runs every page with MyST-NB, and nothing on it comes from a network.

`sphinx-build -W docs build/site` makes it. Warnings, dead links and pictures without words are errors.
"""

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PROFILE = Path(tempfile.mkdtemp(prefix="kernels-")) / "profile_default"  # not what the builder has at home
PROFILE.mkdir()
atexit.register(shutil.rmtree, PROFILE.parent, ignore_errors=True)
(PROFILE / "ipython_kernel_config.py").write_text("""
c.IPKernelApp.log_level = 40  # that it talks within this machine needs no warning
c.HistoryManager.enabled = False
c.IPKernelApp.exec_lines = [
    "import sys, warnings",
    "sys.stdout.flush_interval = 3600  # what a cell prints is one piece",
    "for kind in (UserWarning, RuntimeWarning, DeprecationWarning): warnings.simplefilter('error', kind)",
    "del sys, warnings, kind",
]
""")
os.environ |= {  # for the kernels that run the pages
    "IPYTHONDIR": str(PROFILE.parent),
    "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
    "COLUMNS": "88",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

from tinygrad_rnn import __version__ as release  # noqa: E402, F401

project = "tinygrad_rnn"
author = "the tinygrad_rnn developers"
copyright = author
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "building.mathematics",
    "building.docstrings",
    "building.inspection",
]
exclude_patterns = ["building"]
html_theme = "furo"
html_title = "tinygrad_rnn"
html_copy_source = False
html_show_search_summary = False  # which a browser may not fetch from the file system
html_static_path = ["building/static"]
html_css_files = ["site.css"]
pygments_style, pygments_dark_style = "friendly", "monokai"

nitpicky = True
nitpick_ignore_regex = [("py:obj", ".*")]  # code in docstrings leads to where the reference has it, if it does
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_render_markdown_format = "myst"
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath", "tasklist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autoclass_content = "both"
viewcode_line_numbers = True

# The notebook lives among the examples and is shown here as a page.
NOTEBOOK = HERE.parent / "examples" / "gru_in_jupyter.ipynb"
if NOTEBOOK.exists():
    shutil.copy(NOTEBOOK, HERE / NOTEBOOK.name)
