"""What goes in and out: bodies in which every field is known, and fields of ours."""

from typing import Any, ClassVar

from rest_framework import serializers

from accounts.api import moments


class Strict(serializers.Serializer[Any]):
    """A body in which a field that is not known is a mistake, and not passed over."""

    example: ClassVar[dict[str, Any]] = {}
    """What somebody might send, for the description; what must be said goes without saying."""

    def to_internal_value(self, data: Any) -> Any:
        """Raises `ValidationError`."""
        if isinstance(data, dict):
            known = {name for name, field in self.fields.items() if not field.read_only}
            if unknown := {str(name) for name in data} - known:
                raise serializers.ValidationError(
                    {name: [serializers.ErrorDetail("There is no such field.", "unknown-field")] for name in unknown}
                )
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A string, and nothing that could be made one."""

    def to_internal_value(self, data: Any) -> str:
        """Raises `ValidationError`."""
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Truth(serializers.BooleanField):
    """true or false, and nothing that could mean one of them."""

    def to_internal_value(self, data: Any) -> bool:
        """Raises `ValidationError`."""
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Whole(serializers.IntegerField):
    """A whole number, and nothing that could be made one."""

    def to_internal_value(self, data: Any) -> int:
        """Raises `ValidationError`."""
        if isinstance(data, bool) or not isinstance(data, int | float) or data != data // 1:
            self.fail("invalid")
        return super().to_internal_value(int(data))


class Moment(serializers.DateTimeField):
    """A time with its zone, and nothing from which one would have to be guessed."""

    def to_internal_value(self, data: Any) -> Any:
        """Raises `ValidationError`."""
        if not moments.is_one(data):
            raise serializers.ValidationError(moments.ADVICE, code="invalid")
        return super().to_internal_value(data)


class Network(Text):
    """A network such as 192.0.2.0/24."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=43, **options)
