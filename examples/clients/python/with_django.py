"""Django 5: a field that encrypts and decrypts, and a table with an encrypting trigger."""

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


class EncryptedTextField(models.TextField):
    """A bytea column whose values are encrypted under the KMS key `key_id`."""

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
        return f"env_encrypt(%s::text, '{key_id}')"

    def select_format(self, compiler, sql, params):
        return f"env_decrypt({sql})", params

    def get_lookup(self, lookup_name):
        # Equality of encrypted values finds nothing: refuse it. isnull is right.
        if lookup_name != "isnull":
            raise NotImplementedError(f"an encrypted field has no lookup {lookup_name}: use a search token")
        return super().get_lookup(lookup_name)


class Patient(models.Model):
    id = models.IntegerField(primary_key=True)
    diagnosis = EncryptedTextField(null=True, key_id="alias/patients")

    class Meta:
        app_label, managed, db_table = "clinic", False, "patient"


class Person(models.Model):
    """The trigger encrypts ssn into ssn_enc; save() of all columns leaves the value alone."""

    id = models.BigAutoField(primary_key=True)
    name = models.TextField(null=True)
    ssn = models.TextField(null=True)
    ssn_enc = models.BinaryField(null=True)

    class Meta:
        app_label, managed, db_table = "clinic", False, "person"


Patient.objects.bulk_create([Patient(id=1, diagnosis="asthma"), Patient(id=2, diagnosis=""), Patient(id=3, diagnosis=None)])
assert list(Patient.objects.order_by("id").values_list("id", "diagnosis")) == [(1, "asthma"), (2, ""), (3, None)]
patient = Patient.objects.get(id=1)
patient.diagnosis = "asthma, mild"
patient.save()
assert Patient.objects.get(id=1).diagnosis == "asthma, mild"
assert Patient.objects.filter(diagnosis__isnull=True).count() == 1
try:
    Patient.objects.filter(diagnosis="asthma").count()
    raise AssertionError("a lookup that finds nothing was let through")
except NotImplementedError:
    pass

Person.objects.create(name="Ada", ssn="078-05-1120")
person = Person.objects.get(name="Ada")
assert person.ssn is None
person.name = "Ada Lovelace"
person.save()
with connection.cursor() as cursor:
    cursor.execute("SELECT name, ssn, env_decrypt(ssn_enc) FROM person")
    assert cursor.fetchall() == [("Ada Lovelace", None, "078-05-1120")]
