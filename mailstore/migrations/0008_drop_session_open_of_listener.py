from django.contrib.postgres.operations import RemoveIndexConcurrently
from django.db import migrations


class Migration(migrations.Migration):
    """Superseded by the index of all of a listener's sessions."""

    atomic = False
    dependencies = [("mailstore", "0007_session_of_listener")]

    operations = [RemoveIndexConcurrently(model_name="maildropsession", name="session_open_of_listener")]
