"Hooks of MkDocs: what the search reads."
import re

from mkdocs.plugins import CombinedEvent, event_priority


@event_priority(100)  # before the search reads the page
def uncolour(context, page, **_):
    """Code without the span around each of its words: 600,000 of them took the search a third of the whole build, and it reads the words alone.

    The sources on the API pages are left out: the notebooks have the same.
    """
    page.coloured = page.content
    page.content = re.sub(r'<details class="mkdocstrings-source.*?</details>', "", page.content, flags=re.DOTALL)
    page.content = re.sub(r"<pre.*?</pre>", lambda code: re.sub(r"</?span[^>]*>", "", code[0]), page.content, flags=re.DOTALL)


@event_priority(-100)
def recolour(context, page, **_):
    page.content = page.coloured


on_page_context = CombinedEvent(uncolour, recolour)
