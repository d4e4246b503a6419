"""ROS message definitions, as recorded beside the messages, to a tree of fields and from there to Arrow types.

`rosbags` parses the text; only its parser is used, never its generated code, since a definition comes from the file and
is as hostile as the rest of it. A definition that is too large, recursive, or uses what has no Arrow type (``wstring``,
``float128``) is not described, and its messages stay bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from ...pipeline.schema import EVENT_FIELDS

__all__ = ["FixedList", "List", "MessageTree", "Node", "Struct", "Value", "describe_fields", "parse_definition"]

_TEXT_LIMIT, _NODE_LIMIT, _DEPTH_LIMIT, _LENGTH_LIMIT = 1 << 18, 4096, 24, 1 << 20
_ARROW: dict[str, pa.DataType] = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "uint8": pa.uint8(),
    "int16": pa.int16(),
    "uint16": pa.uint16(),
    "int32": pa.int32(),
    "uint32": pa.uint32(),
    "int64": pa.int64(),
    "uint64": pa.uint64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.utf8(),
}
#: In ROS 1 a byte has a sign.
_SAME = {"byte": "uint8", "char": "uint8", "octet": "uint8"}
#: std_msgs/Header of ROS 2 and of ROS 1.
_HEADERS = ("int32 uint32 string", "uint32 uint32 uint32 string")
#: A builtin_interfaces/Time, and ROS 1's time.
_TIMES = ("int32 uint32", "uint32 uint32")
#: Types that some writers leave out of the definition.
_KNOWN: dict[str, tuple[tuple[str, str], ...]] = {
    "builtin_interfaces/msg/Time": (("sec", "int32"), ("nanosec", "uint32")),
    "builtin_interfaces/msg/Duration": (("sec", "int32"), ("nanosec", "uint32")),
}
#: The `time` and `duration` of ROS 1.
_KNOWN_ROS1: dict[str, tuple[tuple[str, str], ...]] = {
    "builtin_interfaces/msg/Time": (("sec", "uint32"), ("nanosec", "uint32")),
    "builtin_interfaces/msg/Duration": (("sec", "int32"), ("nanosec", "int32")),
}
_IDL = ("ros2idl", "omgidl")


@dataclass(frozen=True, slots=True)
class Value:
    """A number, boolean or string."""

    kind: str

    @property
    def arrow(self) -> pa.DataType:
        return _ARROW[self.kind]


@dataclass(frozen=True, slots=True)
class FixedList:
    """`length` items, always."""

    item: Node
    length: int

    @property
    def arrow(self) -> pa.DataType:
        return pa.list_(self.item.arrow, self.length)


@dataclass(frozen=True, slots=True)
class List:
    """Any number of items."""

    item: Node

    @property
    def arrow(self) -> pa.DataType:
        return pa.list_(self.item.arrow)


@dataclass(frozen=True, slots=True)
class Struct:
    """Named fields in the order they are written."""

    fields: tuple[tuple[str, Node], ...]

    @property
    def arrow(self) -> pa.DataType:
        return pa.struct([pa.field(name, node.arrow) for name, node in self.fields])


Node = Value | FixedList | List | Struct


@dataclass(frozen=True, slots=True)
class MessageTree:
    """A message type: its name and fields."""

    name: str
    root: Struct

    def columns(self) -> list[tuple[str, pa.DataType]]:
        """``topic`` and one column a field; a field with the name of a column that every table has gets a ``_``."""
        taken = {"topic", *(field.name for field in EVENT_FIELDS)}
        columns: list[tuple[str, pa.DataType]] = [("topic", pa.dictionary(pa.int16(), pa.utf8()))]
        for name, node in self.root.fields:
            while name in taken:
                name += "_"
            taken.add(name)
            columns.append((name, node.arrow))
        return columns

    @property
    def stamp(self) -> str | None:
        """What the message begins with: ``"header"``, a std_msgs/Header, or ``"time"``, a builtin_interfaces/Time.

        The time counts where the field is called ``timestamp`` (foxglove_msgs) or ``stamp``.
        """
        if not self.root.fields:
            return None
        name, first = self.root.fields[0]
        if not isinstance(first, Struct):
            return None
        if name == "header" and describe_fields(first) in _HEADERS:
            return "header"
        return "time" if name in ("timestamp", "stamp") and describe_fields(first) in _TIMES else None


def describe_fields(node: MessageTree | Node) -> str:
    """The fields as they lie in a message, names left out: ``int32 uint32 string uint8[]``."""
    if isinstance(node, MessageTree):
        return describe_fields(node.root)
    if isinstance(node, Value):
        return node.kind
    if isinstance(node, Struct):
        return " ".join(describe_fields(item) for _, item in node.fields)
    inner = describe_fields(node.item)
    length = node.length if isinstance(node, FixedList) else ""
    return f"({inner})[{length}]" if isinstance(node.item, Struct) else f"{inner}[{length}]"


def parse_definition(name: str, notation: str, definition: bytes) -> MessageTree | None:
    """The fields of message type `name`, or None if the definition does not describe them.

    `notation` is ``ros2msg``, ``ros1msg``, ``ros2idl`` or ``omgidl``.
    """
    if len(definition) > _TEXT_LIMIT:
        return None
    from rosbags.typesys import get_types_from_idl, get_types_from_msg

    try:
        text = definition.decode("utf-8")
        if notation == "ros2msg" and name.endswith("_Event"):
            text = _service_event(name, text)
        found = get_types_from_idl(text) if notation in _IDL else get_types_from_msg(text, name)
        types = {key: value[1] for key, value in found.items()}
        # A .msg text begins with the type itself, under a name that the parser may have normalised.
        if notation in _IDL:
            root = next(key for key in (name, name.replace("::", "/"), name.replace("/msg/", "/")) if key in types)
        else:
            root = name if name in types else next(iter(types))
        struct = _Builder(types, notation == "ros1msg").struct(root, 0)
    except Exception:  # the parser raises whatever a hostile text makes it raise
        return None
    return MessageTree(name, struct)


_BAR = "=" * 80
_EVENT_INFO = "uint8 event_type\nbuiltin_interfaces/Time stamp\nuint8[16] client_gid\nint64 sequence_number"


def _service_event(name: str, text: str) -> str:
    """The definition of a service's event (service_msgs, REP 2012), where `text` is that of the service."""
    own, bar, rest = text.partition(f"\n{_BAR}")
    parts = re.split(r"^---\s*$", own, maxsplit=1, flags=re.MULTILINE)
    if len(parts) != 2:
        return text
    package, base = name.partition("/")[0], name.rpartition("/")[2].removesuffix("_Event")
    kinds = {f"{package}/{base}_Request": parts[0], f"{package}/{base}_Response": parts[1]}
    kinds["service_msgs/ServiceEventInfo"] = _EVENT_INFO
    event = f"service_msgs/ServiceEventInfo info\n{package}/{base}_Request[<=1] request\n"
    event += f"{package}/{base}_Response[<=1] response\n"
    sections = "".join(f"{_BAR}\nMSG: {kind}\n{fields.strip()}\n" for kind, fields in kinds.items())
    return event + sections + (bar + rest).lstrip("\n")


def takes_space(node: Node) -> bool:
    """Whether every value of `node` is at least one byte."""
    return not isinstance(node, Struct) or any(takes_space(item) for _, item in node.fields)


class _Builder:
    def __init__(self, types: dict[str, Any], ros1: bool) -> None:
        from rosbags.interfaces import Nodetype

        self._types, self._kinds, self._nodes, self._ros1 = types, Nodetype, 0, ros1

    def struct(self, name: str, depth: int) -> Struct:
        self._count(depth)
        if name not in self._types and name in _KNOWN:
            known = _KNOWN_ROS1 if self._ros1 else _KNOWN
            return Struct(tuple((field, Value(kind)) for field, kind in known[name]))
        fields = tuple((str(field), self.node(what, depth + 1)) for field, what in self._types[name])
        if len({field for field, _ in fields}) != len(fields):
            raise ValueError(f"{name} has two fields of one name")
        if self._ros1:
            return Struct(fields)
        # An empty structure is written as one byte (rosidl), which also makes every list item take space.
        return Struct(fields or (("structure_needs_at_least_one_member", Value("uint8")),))

    def node(self, what: Any, depth: int) -> Node:
        self._count(depth)
        kind, detail = what
        if kind == self._kinds.BASE:
            base = "int8" if self._ros1 and detail[0] == "byte" else _SAME.get(detail[0], detail[0])
            if base not in _ARROW:
                raise ValueError(f"{base} has no Arrow type")
            return Value(base)
        if kind == self._kinds.NAME:
            return self.struct(detail, depth + 1)
        item, length = detail
        inner = self.node(item, depth + 1)
        if not takes_space(inner):  # any number of such items would fit into no bytes at all
            raise ValueError("a list of items without fields")
        if kind == self._kinds.ARRAY:
            if not 0 < length <= _LENGTH_LIMIT:
                raise ValueError(f"an array of {length} items")
            return FixedList(inner, length)
        return List(inner)

    def _count(self, depth: int) -> None:
        self._nodes += 1
        if self._nodes > _NODE_LIMIT or depth > _DEPTH_LIMIT:
            raise ValueError("the definition is too large or refers to itself")
