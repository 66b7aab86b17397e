from django.db import migrations

from accounts.migrations import _concurrently


class Migration(migrations.Migration):
    """Superseded by the index of all of a listener's sessions."""

    atomic = False
    dependencies = [("mailstore", "0007_session_of_listener")]

    operations = [_concurrently.RemoveIndex(model_name="maildropsession", name="session_open_of_listener")]
