"""Sphinx's configuration: Markdown by MyST, every warning an error, nothing loaded from elsewhere by the pages.

`make docs` builds into build/docs. MkDocs was the first choice and was left: its last release is of August 2024.
"""

project = "LEIA"
author = "the LEIA developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns: list[str] = []
nitpicky = True

myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings: list[str] = []

html_theme = "pydata_sphinx_theme"
html_title = "LEIA"
html_theme_options = {
    "navbar_center": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "use_edit_page_button": False,
}
html_sidebars = {"**": ["globaltoc.html"]}
html_show_sourcelink = False
html_copy_source = False
html_static_path: list[str] = []
pygments_style = "friendly"
