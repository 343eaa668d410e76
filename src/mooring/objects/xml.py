"""S3's XML, read and written. Pure. Texts come from clients: every one is escaped, and no document type is accepted."""

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias
from xml.etree import ElementTree
from xml.parsers import expat

from mooring.objects.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'

# (name, text or number or flag or children); None: left out
Content: TypeAlias = "str | int | bool | Iterable[Node] | None"
Node: TypeAlias = "tuple[str, Content]"

_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]')


def escape(text: str) -> str:
    """Text as element content. Characters that XML 1.0 cannot hold become references all the same, as S3 sends them."""
    return _SPECIAL.sub(_reference, text)


def _reference(match: re.Match[str]) -> str:
    character = match[0]
    return {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}.get(character) or f"&#x{ord(character):x};"


def document(root: str, children: Iterable[Node], *, namespace: str = NAMESPACE) -> bytes:
    """A whole document."""
    attribute = f' xmlns="{namespace}"' if namespace else ""
    body = "".join(_pieces(children))
    return f"{DECLARATION}<{root}{attribute}>{body}</{root}>".encode()


def _pieces(nodes: Iterable[Node]) -> Iterator[str]:
    for name, content in nodes:
        match content:
            case None:
                continue
            case bool():
                yield f"<{name}>{'true' if content else 'false'}</{name}>"
            case int():
                yield f"<{name}>{content}</{name}>"
            case str():
                yield f"<{name}>{escape(content)}</{name}>"
            case _:
                yield f"<{name}>"
                yield from _pieces(content)
                yield f"</{name}>"


def parse(data: bytes, root: str) -> ElementTree.Element:
    """The root element, its tags without their namespace. Raises MalformedXML."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, attributes: builder.start(name.rpartition(" ")[2], {})
    parser.EndElementHandler = lambda name: builder.end(name.rpartition(" ")[2])
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse
    parser.buffer_text = True
    try:
        parser.Parse(data, True)
        element = builder.close()
    except (expat.ExpatError, ValueError, AssertionError) as error:
        raise malformed() from error
    if element.tag != root:
        raise malformed()
    return element


def _refuse(*_: object) -> None:
    raise malformed()


def malformed() -> S3Error:
    """The document is not what it should be."""
    return S3Error(
        "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema"
    )
