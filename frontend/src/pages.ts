/** Entry of every page: the stylesheet and the small behaviours of server-rendered pages, which all work without it. */

import "./style.css";
import { startApiForms } from "./pages/api-forms";
import { startConfirmations } from "./pages/confirmations";
import { startJobProgress } from "./pages/job-progress";
import { startMenus } from "./pages/menus";
import { startRowKeys } from "./pages/row-keys";

startMenus();
startRowKeys();
startConfirmations();
startApiForms();
startJobProgress();
