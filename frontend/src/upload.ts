/** Entry of the operator's upload part: mounts on the element with data-upload. */

import { mountUpload } from "./upload/panel";

const root = document.querySelector<HTMLElement>("[data-upload]");
if (root) mountUpload(root);
