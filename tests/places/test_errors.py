"""What is said of errors of storages whose libraries say it in many ways."""

import errno

import pytest

from tulu_jax.places import Address, storage_error


class Answered(Exception):
    """With the status of an answer, as gcsfs' errors have."""

    def __init__(self, code, text):
        super().__init__(text)
        self.code = code


@pytest.mark.parametrize(
    ("scheme", "error", "words", "code"),
    [
        ("gs", Answered(401, "Invalid Credentials"),
         r"nobody is logged in to read - got Answered.*gcloud auth application-default login",
         errno.EACCES),
        ("gs", Answered(403, "x does not have storage.buckets.get access"),
         r"expected the permission storage\.buckets\.get - grant the role", errno.EACCES),
        ("s3", Exception("403 Forbidden: <Code>InvalidAccessKeyId</Code>"),
         r"nobody is logged in to read .* set AWS_ACCESS_KEY_ID", errno.EACCES),
        ("s3", Exception("403 Forbidden: <Code>AccessDenied</Code>"),
         r"no permission to read .* expected the permission s3:GetObject - grant it", errno.EACCES),
        ("s3", Exception("Received redirect without LOCATION: incorrectly configured region"),
         r"bucket lies in another region .* expected its region in AWS_REGION", errno.EINVAL),
        ("gs", Exception("PERMISSION_DENIED: Invalid Credentials [http_response_code='401']"),
         r"nobody is logged in to read", errno.EACCES),
        ("s3", Exception(f"for path x: {'very long ' * 50} Server returned code: 403 Forbidden"),
         r"no permission to read .*Forbidden at s3://bucket/x", errno.EACCES),
        ("gs", Exception("connection reset: runs/a/checkpoints/403/meta, checkpoints/401"),
         r"storage does not answer: could not read", errno.ETIMEDOUT),
        ("s3", Exception("connection refused"),
         r"storage does not answer: could not read, gave up after 35 s", errno.ETIMEDOUT),
    ],
)  # fmt: skip
def test_what_is_wrong_and_what_to_do_is_told(scheme, error, words, code):
    found = storage_error(error, deed="read", at=Address(scheme, "bucket", "x"), seconds=35)
    assert found.errno == code
    with pytest.raises(OSError, match=words):
        raise found
