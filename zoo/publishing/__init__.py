"""Publishing: putting entries into a zoo that others pull from.

A zoo that is published to is an index and blobs: `index.json` with a serial number, and `blobs/<aa>/<sha256>`. Content
comes first and is named by its hash, so nothing is ever overwritten. The index comes last, and replaces exactly the
index that was read: whoever was second reads it again. So two publishers lose nothing, and one who is killed leaves
blobs that nobody lists, which the next call uses.

    opening.py   where a zoo may be: a folder, S3 (s3.py) or the Hugging Face Hub (hub.py);
                 targets.py says what each can do
    publish.py   an entry into a target
    editing.py   changes of an index, tried again until nobody was in between; yank and deprecate
"""
