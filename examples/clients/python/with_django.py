"""Django 5: fields that encrypt and decrypt, and a table with an encrypting trigger."""

import os

import django
from django.conf import settings
from django.db import connection, models

settings.configure(
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "USER": os.environ["PGUSER"],
            "NAME": os.environ["PGDATABASE"],
            # Without it Django puts values into the statement as literals, and a log of statements has the plaintext.
            "OPTIONS": {"server_side_binding": True},
        }
    },
)
django.setup()


class Encrypted:
    """Mixed into a field: a bytea column whose values are encrypted under the KMS key `key_id`."""

    def __init__(self, *args, key_id, **kwargs):
        super().__init__(*args, **kwargs)
        self.key_id = key_id

    def deconstruct(self):
        name, path, args, kwargs = super().deconstruct()
        return name, path, args, kwargs | {"key_id": self.key_id}

    def db_type(self, connection):
        return "bytea"

    def get_placeholder(self, value, compiler, connection):
        key_id = self.key_id.replace("'", "''").replace("%", "%%")
        return f"{self.encrypt}(%s::{self.cast}, '{key_id}')"

    def select_format(self, compiler, sql, params):
        return f"{self.decrypt}({sql})", params

    def get_lookup(self, lookup_name):
        # Equality of encrypted values finds nothing: refuse it. isnull is right.
        if lookup_name != "isnull":
            raise NotImplementedError(f"an encrypted field has no lookup {lookup_name}: use a search token")
        return super().get_lookup(lookup_name)

    def get_transform(self, lookup_name):
        # `record__since` of a JSON field.
        raise NotImplementedError(f"an encrypted field has no {lookup_name}")


class EncryptedTextField(Encrypted, models.TextField):
    encrypt, decrypt, cast = "env_encrypt", "env_decrypt", "text"


class EncryptedJSONField(Encrypted, models.JSONField):
    encrypt, decrypt, cast = "env_encrypt_jsonb", "env_decrypt_jsonb", "jsonb"


class EncryptedBinaryField(Encrypted, models.BinaryField):
    encrypt, decrypt, cast = "env_encrypt_bytea", "env_decrypt_bytea", "bytea"


class Patient(models.Model):
    id = models.IntegerField(primary_key=True)
    diagnosis = EncryptedTextField(null=True, key_id="alias/patients")
    record = EncryptedJSONField(null=True, key_id="alias/patients")
    photo = EncryptedBinaryField(null=True, key_id="alias/patients")

    class Meta:
        app_label, managed, db_table = "clinic", False, "patient"


class Person(models.Model):
    """The trigger encrypts ssn into ssn_enc; save() writes all columns, and leaves the value alone."""

    id = models.BigAutoField(primary_key=True)
    name = models.TextField(null=True)
    ssn = models.TextField(null=True)
    ssn_enc = models.BinaryField(null=True)

    class Meta:
        app_label, managed, db_table = "clinic", False, "person"


rows = [(1, "asthma", {"since": 2019}, b"\xff\xd8"), (2, "", None, b""), (3, None, {"a": [1, None]}, None)]
Patient.objects.bulk_create(Patient(id=i, diagnosis=d, record=r, photo=p) for i, d, r, p in rows)
read = Patient.objects.order_by("id").values_list("id", "diagnosis", "record", "photo")
assert [(i, d, r, None if p is None else bytes(p)) for i, d, r, p in read] == rows
patient = Patient.objects.get(id=1)
patient.diagnosis = "asthma, mild"
patient.save()
assert Patient.objects.get(id=1).diagnosis == "asthma, mild"
assert Patient.objects.filter(diagnosis__isnull=True).count() == 1
for condition in ({"diagnosis": "asthma"}, {"record__since": 2019}):
    try:
        Patient.objects.filter(**condition).count()
        raise AssertionError("a lookup that finds nothing was let through")
    except NotImplementedError:
        pass

Person.objects.create(name="Ada", ssn="078-05-1120")
person = Person.objects.get(name="Ada")
assert person.ssn is None
person.name = "Ada Lovelace"
person.save()
with connection.cursor() as cursor:
    cursor.execute("SELECT name, ssn, env_decrypt(ssn_enc, 'person.ssn:' || id) FROM person")
    assert cursor.fetchall() == [("Ada Lovelace", None, "078-05-1120")]
