"""Errors of accounts, in words for the person who meets them."""


class AccountsError(Exception):
    code = "accounts"


class WrongPassword(AccountsError):
    code = "wrong_password"

    def __init__(self) -> None:
        super().__init__("The password is not right. Nothing was signed.")


class LinkNotValid(AccountsError):
    code = "link_not_valid"

    def __init__(self) -> None:
        super().__init__(
            "This log-in link was used already or has run out. Ask for a new one, or log in with your password."
        )
