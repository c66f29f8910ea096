from django.core.management import call_command


def test_the_reference_made_from_the_code_is_up_to_date():
    """Raises CommandError naming the file and the command that writes it."""
    call_command("write_reference", "--check")
