"""What all zoos offer, here and elsewhere, as one list: for `zoo search` and `zoo site`."""
