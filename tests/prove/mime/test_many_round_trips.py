"""The round trips of the unit tests, with ten thousand examples each."""

from unit.mime.test_round_trips import (
    test_a_custom_header_comes_back_as_it_was,
    test_a_file_name_comes_back_as_it_was,
    test_a_subject_comes_back_as_it_was,
    test_a_text_body_comes_back_as_it_was,
    test_attachments_come_back_byte_for_byte,
    test_display_names_come_back_beside_their_addresses,
    test_no_input_makes_a_header_a_recipient_or_a_part_of_its_own,
    test_text_and_html_come_back_side_by_side,
)

__all__ = [
    "test_a_custom_header_comes_back_as_it_was",
    "test_a_file_name_comes_back_as_it_was",
    "test_a_subject_comes_back_as_it_was",
    "test_a_text_body_comes_back_as_it_was",
    "test_attachments_come_back_byte_for_byte",
    "test_display_names_come_back_beside_their_addresses",
    "test_no_input_makes_a_header_a_recipient_or_a_part_of_its_own",
    "test_text_and_html_come_back_side_by_side",
]
