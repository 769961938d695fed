"""The round trips of the unit tests, with ten thousand examples each."""

from unit.mime.test_round_trips import (
    test_a_custom_header_round_trips,
    test_a_file_name_round_trips,
    test_a_subject_round_trips,
    test_a_text_body_round_trips,
    test_attachments_round_trip,
    test_display_names_round_trip_with_their_addresses,
    test_no_input_adds_a_header_recipient_or_part,
    test_text_and_html_round_trip_together,
)

__all__ = [
    "test_a_custom_header_round_trips",
    "test_a_file_name_round_trips",
    "test_a_subject_round_trips",
    "test_a_text_body_round_trips",
    "test_attachments_round_trip",
    "test_display_names_round_trip_with_their_addresses",
    "test_no_input_adds_a_header_recipient_or_part",
    "test_text_and_html_round_trip_together",
]
