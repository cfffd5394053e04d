"""The map of the course: `{course-map}` lists the chapters, linked and with a picture once they are written.

This table is the one place where the plan stands. A chapter is linked as soon as its notebook exists.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

from covers import FOLDER, Cover, all_covers, cover_of, fitted, shown_part
from docutils import nodes
from PIL import Image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.osutil import relative_uri

BOX = (176, 117)  # pixels of the page that a picture may fill
FINENESS = 2  # pixels of the file for one of the page


class Chapter(NamedTuple):
    """One chapter: its number, title, notebook (without folder and ending) and the question it answers."""

    number: int
    title: str
    notebook: str
    question: str


CHAPTERS = (
    Chapter(0, "Start here", "00_start", "What goes into a network, what comes out, and what may you conclude?"),
    Chapter(1, "Filters", "01_filters", "What does one filter respond to, and what does it ignore?"),
    Chapter(2, "Activations", "02_activations", "What does a picture turn into, layer by layer?"),
    Chapter(3, "Filter maximization", "03_filter_maximization", "Which picture would excite a filter the most?"),
    Chapter(4, "Class maximization", "04_class_maximization", "Which picture does the network call the best goldfish?"),
    Chapter(5, "Saliency", "05_saliency", "Which pixels would change the answer if they changed a little?"),
    Chapter(6, "Grad-CAM", "06_gradcam", "Where in the picture is the evidence for this class?"),
    Chapter(7, "Fooling images", "07_fooling_images", "How little must change for the answer to be wrong?"),
    Chapter(8, "Optimizers", "08_optimizers", "What does each optimizer do with the same gradient?"),
    Chapter(9, "Learning rates", "09_learning_rates", "How large may a step be, and when should it shrink?"),
    Chapter(10, "Training a CIFAR ResNet", "10_cifar_resnet", "How does a network get its weights?"),
    Chapter(11, "Can you trust an explanation?", "11_trust", "Where you know the truth, does the map find it?"),
    Chapter(12, "Capstone: the biased network", "12_capstone", "Can you find the shortcut that this network took?"),
)


class CourseMap(SphinxDirective):
    """The directive `{course-map}`: an ordered list that starts at chapter 0."""

    def run(self) -> list[nodes.Node]:
        """Make the list; a chapter without a notebook is shown as planned, without a link."""
        # A chapter that appears or goes must redraw the map although this page is unchanged.
        self.env.note_reread()
        here = self.env.docname.rpartition("/")[0]
        items = [self.item(chapter, f"{here}/{chapter.notebook}") for chapter in CHAPTERS]
        return [nodes.enumerated_list("", *items, start=0, enumtype="arabic", classes=["course-map"])]

    def item(self, chapter: Chapter, docname: str) -> nodes.list_item:
        """One chapter: title (a link or the word planned) and its question."""
        title = nodes.inline("", chapter.title, classes=["course-map-title"])
        head = nodes.paragraph("", "")
        if docname in self.env.found_docs:
            target = self.env.app.builder.get_relative_uri(self.env.docname, docname)
            head += nodes.reference("", "", title, internal=True, refuri=target)
        else:
            head += [title, nodes.Text(" "), nodes.inline("", "planned", classes=["course-map-planned"])]
        question = nodes.paragraph("", chapter.question, classes=["course-map-question"])
        cover = cover_of(Path(self.env.doc2path(docname))) if docname in self.env.found_docs else None
        return nodes.list_item("", head, question, *([self.picture(cover)] if cover else []))

    def picture(self, cover: Cover) -> nodes.raw:
        """The chapter's picture, small."""
        width, height = fitted(shown_part(cover).size, BOX)
        source = relative_uri(self.env.app.builder.get_target_uri(self.env.docname), small(cover))
        html = f'<img src="{source}" alt="{escape(cover.alt)}" width="{width}" height="{height}" loading="lazy" />'
        return nodes.raw("", html, format="html")


def small(cover: Cover) -> str:
    """Where the small picture lies in the built folder."""
    return f"{FOLDER}/small/{cover.number}.webp"


def write_small_pictures(app: Sphinx, exception: Exception | None) -> None:
    """Write the pictures of the map: the covers themselves weigh half a megabyte."""
    if exception is not None or app.builder.format != "html":
        return
    for cover in all_covers(app):
        picture, path = shown_part(cover), Path(app.outdir) / small(cover)
        path.parent.mkdir(parents=True, exist_ok=True)
        size = fitted(picture.size, (BOX[0] * FINENESS, BOX[1] * FINENESS))
        picture.resize(size, Image.Resampling.LANCZOS).save(path, quality=80, method=6)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("course-map", CourseMap)
    app.connect("build-finished", write_small_pictures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
